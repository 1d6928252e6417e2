// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Receiving: buffers, socket buffers made of them, and the NAPI poll. Received frames are put
 * aside while the core holds the path lock and handed on after it, because the stack may transmit
 * from there.
 *
 * A buffer is a page fragment: the room that build_skb() wants, with its device address kept in
 * the headroom, then the data, then the shared info.
 */
#include <linux/if_vlan.h>
#include <linux/mm.h>
#include <linux/skbuff.h>
#include "device.h"

#define BUFFER_TRUESIZE \
	SKB_DATA_ALIGN(NPA_RX_HEADROOM + NPA_RX_BUFFER + \
		       SKB_DATA_ALIGN(sizeof(struct skb_shared_info)))

static_assert(NPA_RX_HEADROOM % SMP_CACHE_BYTES == 0);
static_assert(BUFFER_TRUESIZE <= PAGE_SIZE);

/* What is kept in a buffer's headroom while the device has it. */
static dma_addr_t *mapping_of(void *handle)
{
	return handle;
}

static void unmap_buffer(struct npa_dev *dev, void *handle)
{
	dma_unmap_single(&dev->pdev->dev, *mapping_of(handle), NPA_RX_BUFFER, DMA_FROM_DEVICE);
}

struct npa_rx_buffer npa_os_rx_alloc(struct npa_dev *dev)
{
	struct npa_rx_buffer buffer = { };
	dma_addr_t address;
	void *handle = netdev_alloc_frag(BUFFER_TRUESIZE);

	if (!handle)
		return buffer;
	address = dma_map_single(&dev->pdev->dev, handle + NPA_RX_HEADROOM, NPA_RX_BUFFER,
				 DMA_FROM_DEVICE);
	if (dma_mapping_error(&dev->pdev->dev, address)) {
		skb_free_frag(handle);
		return buffer;
	}
	*mapping_of(handle) = address;
	buffer.handle = handle;
	buffer.address = address;
	return buffer;
}

void npa_os_rx_free(struct npa_dev *dev, void *handle)
{
	unmap_buffer(dev, handle);
	skb_free_frag(handle);
}

const u8 *npa_os_rx_data(struct npa_dev *dev, void *handle, u32 offset, u32 length)
{
	if (offset > NPA_RX_BUFFER || length > NPA_RX_BUFFER - offset)
		return NULL;
	dma_sync_single_range_for_cpu(&dev->pdev->dev, *mapping_of(handle), offset, length,
				      DMA_FROM_DEVICE);
	return handle + NPA_RX_HEADROOM + offset;
}

/* Makes one socket buffer of the pieces; on failure all of them are freed. */
static struct sk_buff *assemble(struct npa_dev *dev, const struct npa_rx_piece *pieces, u32 count)
{
	struct sk_buff *skb;
	u32 i;

	for (i = 0; i < count; i++)
		unmap_buffer(dev, pieces[i].handle);
	skb = count - 1 <= MAX_SKB_FRAGS ? napi_build_skb(pieces[0].handle, BUFFER_TRUESIZE) : NULL;
	if (!skb) {
		for (i = 0; i < count; i++)
			skb_free_frag(pieces[i].handle);
		return NULL;
	}
	skb_reserve(skb, NPA_RX_HEADROOM + pieces[0].offset);
	skb_put(skb, pieces[0].length);
	for (i = 1; i < count; i++) {
		struct page *page = virt_to_head_page(pieces[i].handle);

		skb_add_rx_frag(skb, i - 1, page,
				pieces[i].handle - page_address(page) + NPA_RX_HEADROOM +
				pieces[i].offset,
				pieces[i].length, BUFFER_TRUESIZE);
	}
	return skb;
}

/* Tells the stack what the device said of checksum and segmentation. False: not believable. */
static bool describe(struct sk_buff *skb, const struct npa_rx_frame *frame)
{
	switch (frame->checksum) {
	case NPA_RX_CSUM_CORRECT:
		skb->ip_summed = CHECKSUM_UNNECESSARY;
		break;
	case NPA_RX_CSUM_PARTIAL:
		if (!skb_partial_csum_set(skb, frame->csum_start, frame->csum_offset))
			return false;
		break;
	default:
		break;		/* the stack looks for itself */
	}
	if (frame->gso_type != NPA_RX_GSO_NONE) {
		skb_shinfo(skb)->gso_size = frame->gso_size;
		skb_shinfo(skb)->gso_segs = 0;
		skb_shinfo(skb)->gso_type = SKB_GSO_DODGY |
			(frame->gso_type == NPA_RX_GSO_TCPV6 ? SKB_GSO_TCPV6 : SKB_GSO_TCPV4);
	}
	if (frame->flags & NPA_RX_VLAN)
		__vlan_hwaccel_put_tag(skb, htons(ETH_P_8021Q), frame->vlan_tag);
	if (frame->flags & NPA_RX_HASH)
		skb_set_hash(skb, frame->hash, PKT_HASH_TYPE_L4);
	return true;
}

void npa_os_deliver(struct npa_dev *dev, const struct npa_rx_frame *frame,
		    const struct npa_rx_piece *pieces, u32 count)
{
	struct sk_buff *skb = assemble(dev, pieces, count);

	if (!skb) {
		npa_count_error(&dev->rx);
		return;
	}
	if (skb_headlen(skb) < ETH_HLEN || !describe(skb, frame)) {
		npa_count_error(&dev->rx);
		kfree_skb(skb);
		return;
	}
	npa_count(&dev->rx, frame->length);
	skb->protocol = eth_type_trans(skb, dev->netdev);
	__skb_queue_tail(&dev->rx_ready, skb);
}

/* Hands on what was put aside. NAPI context. */
static void hand_on(struct npa_dev *dev)
{
	struct sk_buff_head ready;
	struct sk_buff *skb;

	if (skb_queue_empty_lockless(&dev->rx_ready))
		return;
	__skb_queue_head_init(&ready);
	spin_lock_bh(&dev->path);
	skb_queue_splice_init(&dev->rx_ready, &ready);
	spin_unlock_bh(&dev->path);
	while ((skb = __skb_dequeue(&ready)))
		napi_gro_receive(&dev->napi, skb);
}

static int npa_poll(struct napi_struct *napi, int budget)
{
	struct npa_dev *dev = container_of(napi, struct npa_dev, napi);
	bool again;
	u32 done;

	again = npa_core_poll(dev->core, budget, &done);
	hand_on(dev);
	/* Being polled again is asked for by a whole budget. */
	if (again || done >= budget)
		return budget;
	/*
	 * The interrupts are armed already. One that came since has marked the poll as missed, and
	 * napi_complete_done() sees to it.
	 */
	napi_complete_done(napi, done);
	return done;
}

/* A poll from any context; with softirqs open, so that one raised here runs at once. */
void npa_schedule_poll(struct npa_dev *dev)
{
	if (in_hardirq() || irqs_disabled()) {
		napi_schedule(&dev->napi);
		return;
	}
	local_bh_disable();
	napi_schedule(&dev->napi);
	local_bh_enable();
}

void npa_rx_setup(struct npa_dev *dev)
{
	BUILD_BUG_ON(NPA_RX_HEADROOM < NET_SKB_PAD);
	__skb_queue_head_init(&dev->rx_ready);
	u64_stats_init(&dev->rx.sync);
	netif_napi_add(dev->netdev, &dev->napi, npa_poll);
}

/* Drops what was received and not handed on. */
void npa_rx_purge(struct npa_dev *dev)
{
	struct sk_buff_head ready;

	__skb_queue_head_init(&ready);
	spin_lock_bh(&dev->path);
	skb_queue_splice_init(&dev->rx_ready, &ready);
	spin_unlock_bh(&dev->path);
	__skb_queue_purge(&ready);
}

void npa_rx_teardown(struct npa_dev *dev)
{
	netif_napi_del(&dev->napi);
	npa_rx_purge(dev);
}
