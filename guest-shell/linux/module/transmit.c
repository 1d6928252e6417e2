// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Sending: maps a socket buffer, describes it to the core, and takes it back when the core says
 * that it is done with it. The mapping is kept here, because a frame may have to be given to
 * another path before it is sent.
 */
#include <linux/if_vlan.h>
#include <linux/skbuff.h>
#include <linux/slab.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include "device.h"

static_assert(NPA_SEGMENTS_MAX >= MAX_SKB_FRAGS + 1);

/* Fewest bytes that NICs take: the 82576 with padding switched on, for one. */
#define FRAME_MIN 17

static void unmap_frame(struct npa_dev *dev, const struct npa_tx *tx)
{
	u32 i;

	if (!tx->segment_count)
		return;
	dma_unmap_single(&dev->pdev->dev, tx->segments[0].address, tx->segments[0].length,
			 DMA_TO_DEVICE);
	for (i = 1; i < tx->segment_count; i++)
		dma_unmap_page(&dev->pdev->dev, tx->segments[i].address, tx->segments[i].length,
			       DMA_TO_DEVICE);
}

static bool add_segment(struct npa_dev *dev, struct npa_tx *tx, dma_addr_t address, u32 length)
{
	if (dma_mapping_error(&dev->pdev->dev, address))
		return false;
	tx->segments[tx->segment_count++] = (struct npa_tx_segment){
		.address = address,
		.length = length,
	};
	return true;
}

static bool map_frame(struct npa_dev *dev, struct npa_tx *tx)
{
	struct device *device = &dev->pdev->dev;
	struct sk_buff *skb = tx->skb;
	const skb_frag_t *frag;
	dma_addr_t address;
	int i;

	tx->segment_count = 0;
	address = dma_map_single(device, skb->data, skb_headlen(skb), DMA_TO_DEVICE);
	if (!add_segment(dev, tx, address, skb_headlen(skb)))
		return false;
	for (i = 0; i < skb_shinfo(skb)->nr_frags; i++) {
		frag = &skb_shinfo(skb)->frags[i];
		address = skb_frag_dma_map(device, frag, 0, skb_frag_size(frag), DMA_TO_DEVICE);
		if (!add_segment(dev, tx, address, skb_frag_size(frag))) {
			unmap_frame(dev, tx);
			return false;
		}
	}
	return true;
}

/* Longest headers that NICs take into account: those of the 82576. */
#define L2_MAX 127
#define L3_MAX 511

/*
 * Leaves to the stack what not every path can do: checksums and segments of anything but TCP and
 * UDP over IP. The answer may not depend on the path, because the frame can be given to another.
 */
netdev_features_t npa_features_check(struct sk_buff *skb, struct net_device *netdev,
				     netdev_features_t features)
{
	int l2, l3;

	if (skb->ip_summed != CHECKSUM_PARTIAL)
		return features;
	l2 = skb_network_offset(skb);
	l3 = skb_checksum_start_offset(skb) - l2;
	if ((skb->csum_offset == offsetof(struct tcphdr, check) ||
	     skb->csum_offset == offsetof(struct udphdr, check)) &&
	    (vlan_get_protocol(skb) == htons(ETH_P_IP) ||
	     vlan_get_protocol(skb) == htons(ETH_P_IPV6)) &&
	    l2 >= ETH_HLEN && l2 <= L2_MAX && l3 > 0 && l3 <= L3_MAX)
		return features;
	return features & ~(NETIF_F_CSUM_MASK | NETIF_F_GSO_MASK);
}

/* Fills in what the device shall do with the frame. */
static void describe(const struct npa_tx *tx, struct npa_tx_frame *frame)
{
	const struct sk_buff *skb = tx->skb;

	*frame = (struct npa_tx_frame){
		.segments = tx->segments,
		.segment_count = tx->segment_count,
		.length = skb->len,
	};
	if (skb->ip_summed != CHECKSUM_PARTIAL)
		return;
	frame->flags = NPA_TX_CSUM;
	frame->csum_start = skb_checksum_start_offset(skb);
	frame->csum_offset = skb->csum_offset;
	frame->l2_length = skb_network_offset(skb);
	frame->l3_length = frame->csum_start - frame->l2_length;
	switch (vlan_get_protocol(skb)) {
	case htons(ETH_P_IP):
		frame->flags |= NPA_TX_IPV4;
		break;
	case htons(ETH_P_IPV6):
		frame->flags |= NPA_TX_IPV6;
		break;
	}
	switch (skb->csum_offset) {
	case offsetof(struct tcphdr, check):
		frame->flags |= NPA_TX_TCP;
		frame->l4_length = tcp_hdrlen(skb);
		break;
	case offsetof(struct udphdr, check):
		frame->flags |= NPA_TX_UDP;
		frame->l4_length = sizeof(struct udphdr);
		break;
	}
	if (skb_is_gso(skb)) {
		frame->flags |= NPA_TX_TSO;
		frame->mss = skb_shinfo(skb)->gso_size;
		if (skb_headlen(skb) >= frame->csum_start + frame->l4_length)
			frame->headers = skb->data;
	}
}

/*
 * A free frame record. Only the transmit side takes records and it does so under the queue's
 * lock, so there is one consumer, as llist_del_first() wants.
 */
static struct npa_tx *take_record(struct npa_dev *dev)
{
	struct llist_node *node = llist_del_first(&dev->tx_free);

	return node ? llist_entry(node, struct npa_tx, free) : NULL;
}

netdev_tx_t npa_start_xmit(struct sk_buff *skb, struct net_device *netdev)
{
	struct npa_dev *dev = netdev_priv(netdev);
	bool more = netdev_xmit_more();
	struct npa_tx_frame frame;
	struct npa_tx *tx;

	if (skb_put_padto(skb, FRAME_MIN)) {
		netdev->stats.tx_dropped++;
		goto dropped;
	}
	tx = take_record(dev);
	if (!tx) {
		/* More records than the core ever holds: the core has not kept its promise. */
		net_err_ratelimited("%s: no transmit record left\n", netdev->name);
		netdev->stats.tx_dropped++;
		dev_kfree_skb_any(skb);
		goto dropped;
	}
	tx->skb = skb;
	if (!map_frame(dev, tx)) {
		llist_add(&tx->free, &dev->tx_free);
		netdev->stats.tx_dropped++;
		dev_kfree_skb_any(skb);
		goto dropped;
	}
	describe(tx, &frame);
	skb_tx_timestamp(skb);
	if (npa_core_xmit(dev->core, tx, &frame, more))
		return NETDEV_TX_OK;

	unmap_frame(dev, tx);
	llist_add(&tx->free, &dev->tx_free);
	return NETDEV_TX_BUSY;

dropped:
	if (!more)
		npa_schedule_poll(dev);		/* rings the doorbell for those before */
	return NETDEV_TX_OK;
}

void npa_os_tx_done(struct npa_dev *dev, void *handle, bool sent)
{
	struct npa_tx *tx = handle;
	struct sk_buff *skb = tx->skb;

	unmap_frame(dev, tx);
	if (sent)
		npa_count(&dev->tx, skb->len);
	else
		npa_count_error(&dev->tx);
	tx->skb = NULL;
	llist_add(&tx->free, &dev->tx_free);
	if (sent)
		dev_consume_skb_any(skb);
	else
		dev_kfree_skb_any(skb);
}

void npa_os_tx_stop(struct npa_dev *dev)
{
	netif_stop_queue(dev->netdev);
}

void npa_os_tx_wake(struct npa_dev *dev)
{
	netif_wake_queue(dev->netdev);
}

int npa_tx_setup(struct npa_dev *dev)
{
	/* More than the core holds: a ring's worth. */
	u32 count = 2 * dev->info.tx_entries + 1;
	u32 i;

	u64_stats_init(&dev->tx.sync);
	init_llist_head(&dev->tx_free);
	dev->tx_frames = kvcalloc(count, sizeof(*dev->tx_frames), GFP_KERNEL);
	if (!dev->tx_frames)
		return -ENOMEM;
	for (i = 0; i < count; i++)
		llist_add(&dev->tx_frames[i].free, &dev->tx_free);
	return 0;
}

void npa_tx_teardown(struct npa_dev *dev)
{
	kvfree(dev->tx_frames);
	dev->tx_frames = NULL;
	init_llist_head(&dev->tx_free);
}
