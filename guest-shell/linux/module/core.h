/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The seam between the C layer and the Rust core: what each offers the other. It is private to
 * this module; its Rust half is guest-shell/linux/src/seam.rs. Both sides assert the sizes of the
 * structures, and a test of the Rust side compares the constants. No kernel structure crosses it: `struct npa_dev` is opaque to Rust and
 * `struct npa_core` to C.
 *
 * "Locked" means: called by the core with the path lock held, so it must not sleep and must not
 * call the core. Everything else runs in process context and may sleep unless it says otherwise.
 */
#ifndef NPA_CORE_H
#define NPA_CORE_H

#include <linux/build_bug.h>
#include <linux/if_ether.h>
#include <linux/types.h>

struct npa_core;
struct npa_dev;

/* Most pieces of a frame, either way: a linear head and MAX_SKB_FRAGS fragments. */
#define NPA_SEGMENTS_MAX 18

/* Bits of npa_info.flags. Offloads hold on every path. */
#define NPA_INFO_CSUM		0x01	/* transmit checksums */
#define NPA_INFO_TSO4		0x02	/* TCP segmentation, IPv4 */
#define NPA_INFO_TSO6		0x04	/* TCP segmentation, IPv6 */
#define NPA_INFO_RXCSUM		0x08	/* receive checksums */
#define NPA_INFO_RXMERGED	0x10	/* merged receive frames */
#define NPA_INFO_LINK_UP	0x20	/* the link is up */

/* What a device is, filled by npa_core_probe(). */
struct npa_info {
	u8 mac[ETH_ALEN];
	u16 mtu;		/* largest, in bytes, without the Ethernet header */
	u16 rx_entries;		/* of the rings */
	u16 tx_entries;
	u16 flags;		/* NPA_INFO_* */
};
static_assert(sizeof(struct npa_info) == 14);

/* A piece of a frame to send, as the device addresses it. */
struct npa_tx_segment {
	u64 address;
	u32 length;
	u32 reserved;
};
static_assert(sizeof(struct npa_tx_segment) == 16);

/* Bits of npa_tx_frame.flags. */
#define NPA_TX_CSUM	0x02
#define NPA_TX_TSO	0x04
#define NPA_TX_IPV4	0x08
#define NPA_TX_IPV6	0x10
#define NPA_TX_TCP	0x20
#define NPA_TX_UDP	0x40

/* A frame to send. Lengths and offsets in bytes. */
struct npa_tx_frame {
	const struct npa_tx_segment *segments;
	const u8 *headers;	/* all headers, valid until the frame is done; NULL if scattered */
	u32 length;
	u16 segment_count;
	u16 flags;
	u16 mss;
	u16 l2_length;
	u16 l3_length;
	u16 l4_length;
	u16 csum_start;
	u16 csum_offset;
	u32 reserved;
};
static_assert(sizeof(struct npa_tx_frame) == 40);

/* A receive buffer. */
struct npa_rx_buffer {
	void *handle;		/* NULL when there is none */
	u64 address;		/* of its first byte, for the device */
};
static_assert(sizeof(struct npa_rx_buffer) == 16);

/* A piece of a received frame; the buffer is now the C layer's. */
struct npa_rx_piece {
	void *handle;
	u32 offset;
	u32 length;
};
static_assert(sizeof(struct npa_rx_piece) == 16);

/* Values of npa_rx_frame.checksum. */
#define NPA_RX_CSUM_UNKNOWN	0
#define NPA_RX_CSUM_CORRECT	1
#define NPA_RX_CSUM_INCORRECT	2
#define NPA_RX_CSUM_PARTIAL	3

/* Values of npa_rx_frame.gso_type. */
#define NPA_RX_GSO_NONE		0
#define NPA_RX_GSO_TCPV4	1
#define NPA_RX_GSO_TCPV6	2

/* Bits of npa_rx_frame.flags. */
#define NPA_RX_VLAN	0x01
#define NPA_RX_HASH	0x02

/* What is known of a received frame; the core has checked every offset against the length. */
struct npa_rx_frame {
	u32 length;
	u32 hash;
	u16 flags;
	u16 vlan_tag;
	u16 gso_size;
	u16 header_length;
	u16 csum_start;
	u16 csum_offset;
	u8 checksum;
	u8 gso_type;
	u8 accelerated;		/* came over the VF */
	u8 reserved;
};
static_assert(sizeof(struct npa_rx_frame) == 24);

/* Memory that the device reaches. */
struct npa_dma_memory {
	void *base;		/* NULL when there is none */
	u64 address;
};
static_assert(sizeof(struct npa_dma_memory) == 16);

/* A landing. */
struct npa_landing_range {
	void *base;		/* NULL when there is none */
	size_t length;
	const u64 *pages;
};
static_assert(sizeof(struct npa_landing_range) == 24);

/*
 * What the core offers.
 */

/* Whether the vendor capability that begins with these dwords marks a device for this driver. */
#define NPA_CAPABILITY_WORDS 3
bool npa_core_is_ours(const u32 *words);

/*
 * Takes a device: resets it, negotiates, starts the emulated path with the interface closed, and
 * registers with the hypervisor. Returns NULL after logging the reason if it cannot be driven.
 */
struct npa_core *npa_core_probe(struct npa_dev *dev, struct npa_info *info);

/*
 * Gives a closed device up: leaves the VF if one drives it (waits, bounded by the hypervisor's
 * deadlines), resets the device, takes all buffers back. Nothing may be called any more.
 */
void npa_core_remove(struct npa_core *core);

/* Received frames are delivered, or dropped, from now on. */
void npa_core_open(struct npa_core *core);
void npa_core_close(struct npa_core *core);

/*
 * Acts on what the hypervisor wants and the device reports. True: call it again in about a
 * millisecond. One control call at a time: probe, remove, open, close, event.
 */
bool npa_core_event(struct npa_core *core);

/*
 * Moves up to `budget` received frames, which it counts in `done`, and takes back sent ones.
 * True: work waits, poll again. False: interrupts are armed. Any context that may lock.
 */
bool npa_core_poll(struct npa_core *core, u32 budget, u32 *done);

/*
 * Sends a frame; with `more`, another follows at once and the doorbell may wait (a poll rings it
 * too). True: taken, `handle` comes back by npa_os_tx_done(). False: not taken, and the queue has
 * been stopped. Softirq context.
 */
bool npa_core_xmit(struct npa_core *core, void *handle, const struct npa_tx_frame *frame,
		   bool more);

/* Name and version, with a space between, of the plugin that drives the interface now. */
void npa_core_driver(struct npa_core *core, u8 *text, size_t size);

/* Statistics: how many, one's name, all values. Any context that may lock. */
u32 npa_core_stat_count(void);
void npa_core_stat_name(u32 index, u8 *text, size_t size);
void npa_core_stats(struct npa_core *core, u64 *values, u32 count);

/*
 * What the C layer offers.
 */

/* Configuration space and registers. Any context. */
u32 npa_os_config_read(struct npa_dev *dev, u16 offset);
u32 npa_os_mmio_read(struct npa_dev *dev, u8 bar, u64 offset, u8 width);
void npa_os_mmio_write(struct npa_dev *dev, u8 bar, u64 offset, u8 width, u32 value);
void *npa_os_bar_memory(struct npa_dev *dev, u8 bar, u64 offset, u64 length);

/* Memory, zeroed; DMA memory is page-aligned, the other aligned to 64 bytes. */
struct npa_dma_memory npa_os_dma_alloc(struct npa_dev *dev, size_t length);
void npa_os_dma_free(struct npa_dev *dev, void *base, u64 address, size_t length);
void *npa_os_memory_alloc(size_t length);
void npa_os_memory_free(void *memory);

/* The device's landing; the same answer every time. */
struct npa_landing_range npa_os_landing(struct npa_dev *dev);

/* Leads MSI-X vectors first .. first + count to a poll. 0 or -errno, then none is wired. */
int npa_os_wire_vectors(struct npa_dev *dev, u32 first, u32 count);
void npa_os_unwire_vectors(struct npa_dev *dev, u32 first, u32 count);

/* Has npa_core_event() or npa_core_poll() called soon. Any context. */
void npa_os_schedule_event(struct npa_dev *dev);
void npa_os_schedule_poll(struct npa_dev *dev);

/* One line for the log; `level` 0 is an error. Any context. */
void npa_os_log(struct npa_dev *dev, u32 level, const u8 *text, size_t length);

/* Time. npa_os_now_ns() in any context. */
u64 npa_os_now_ns(void);
void npa_os_sleep_ms(u32 milliseconds);

/* Receive buffers: room before the data, and the data itself, in bytes. */
#define NPA_RX_HEADROOM 64
#define NPA_RX_BUFFER 2048

/* The path lock keeps off NAPI and transmit. */
void npa_os_path_lock(struct npa_dev *dev);
void npa_os_path_unlock(struct npa_dev *dev);

/* Receive buffers of NPA_RX_BUFFER bytes. Any context. */
struct npa_rx_buffer npa_os_rx_alloc(struct npa_dev *dev);
void npa_os_rx_free(struct npa_dev *dev, void *handle);
const u8 *npa_os_rx_data(struct npa_dev *dev, void *handle, u32 offset, u32 length);

/* Frames. Locked. */
void npa_os_deliver(struct npa_dev *dev, const struct npa_rx_frame *frame,
		    const struct npa_rx_piece *pieces, u32 count);
void npa_os_tx_done(struct npa_dev *dev, void *handle, bool sent);
void npa_os_tx_stop(struct npa_dev *dev);
void npa_os_tx_wake(struct npa_dev *dev);

/* The interface may be behind another switch port: the network is to be told soon. */
void npa_os_announce(struct npa_dev *dev);

/* The link came or went. */
void npa_os_link_changed(struct npa_dev *dev, bool up);

#endif /* NPA_CORE_H */
