/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/* What a data-path plugin written in C is built against. Generated from npa-abi; do not edit.
 * All functions follow the System V AMD64 calling convention. */

#ifndef NPA_PLUGIN_H
#define NPA_PLUGIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#define NPA_IMAGE_MAGIC {0x4e, 0x50, 0x41, 0x50, 0x4c, 0x55, 0x47, 0x01}


/**
 * The ABI version of this  A shell, a plugin and a hypervisor work together when their
 * `[min, max]` ranges overlap; each range of this crate is `[ABI_MIN, ABI]`. The number grows
 * when a structure, register or rule changes meaning; additions behind a `size` field do not
 * change it.
 */
#define NPA_ABI 1

/**
 * The oldest ABI version that this crate still speaks.
 */
#define NPA_ABI_MIN 1

/**
 * Size of a page, in bytes: the granularity of landings, window regions and the register page.
 */
#define NPA_PAGE_SIZE 4096

/**
 * Most VF regions that a plugin may ask for.
 */
#define NPA_REGIONS_MAX 6

/**
 * Most PCI ids that one image may serve.
 */
#define NPA_PCI_IDS_MAX 8

/**
 * Most queue roles of a class (receive and transmit, say).
 */
#define NPA_ROLES_MAX 2

/**
 * Region is mapped into the guest's window.
 */
#define NPA_REGION_DATA 1

/**
 * Region is trapped: the hypervisor emulates each access.
 */
#define NPA_REGION_TRAP 2

/**
 * Role index of receive queues in `PluginHeader.roles`.
 */
#define NPA_ROLE_RX 0

/**
 * Role index of transmit queues.
 */
#define NPA_ROLE_TX 1

/**
 * Most segments of a frame to send.
 */
#define NPA_TX_SEGMENTS_MAX 18

/**
 * Most segments of a received frame.
 */
#define NPA_RX_SEGMENTS_MAX 18

/**
 * Frame to send: insert `TxFrame.vlan_tag`.
 */
#define NPA_TX_VLAN (1 << 0)

/**
 * Frame to send: fill in the layer 4 checksum from `csum_start` on, at `csum_offset` from there;
 * the pseudo-header's sum is already in that place.
 */
#define NPA_TX_CSUM (1 << 1)

/**
 * Frame to send: cut TCP segments of `TxFrame.mss` payload bytes. Implies `TX_CSUM`; the
 * pseudo-header's sum is over the uncut frame, as the stack and virtio have it.
 */
#define NPA_TX_TSO (1 << 2)

/**
 * Frame to send is IPv4.
 */
#define NPA_TX_IPV4 (1 << 3)

/**
 * Frame to send is IPv6.
 */
#define NPA_TX_IPV6 (1 << 4)

/**
 * Frame to send is TCP.
 */
#define NPA_TX_TCP (1 << 5)

/**
 * Frame to send is UDP.
 */
#define NPA_TX_UDP (1 << 6)

/**
 * Checksum of a received frame was not looked at.
 */
#define NPA_RX_CSUM_UNKNOWN 0

/**
 * Checksum of a received frame is right.
 */
#define NPA_RX_CSUM_CORRECT 1

/**
 * Checksum of a received frame is wrong; the stack decides.
 */
#define NPA_RX_CSUM_INCORRECT 2

/**
 * Frame comes from this machine and carries only the pseudo-header's sum
 * (`csum_start`, `csum_offset`).
 */
#define NPA_RX_CSUM_PARTIAL 3

/**
 * Received frame carries `RxFrame.vlan_tag`.
 */
#define NPA_RX_VLAN (1 << 0)

/**
 * Received frame carries `RxFrame.hash`.
 */
#define NPA_RX_HASH (1 << 1)

/**
 * The frame only gives its slots' buffers back and is no error: the device should not have
 * delivered it (an echo of the interface's own broadcast, say).
 */
#define NPA_RX_DISCARD (1 << 2)

/**
 * Received frame is not a merged one.
 */
#define NPA_RX_GSO_NONE 0

/**
 * Received frame merges TCP/IPv4 segments of `RxFrame.gso_size` payload bytes.
 */
#define NPA_RX_GSO_TCPV4 1

/**
 * Received frame merges TCP/IPv6 segments.
 */
#define NPA_RX_GSO_TCPV6 2

/**
 * Log levels of `ShellApi.log`.
 */
#define NPA_LOG_ERROR 0

/**
 * See `LOG_ERROR`.
 */
#define NPA_LOG_INFO 1

/**
 * Number of `DEVICE_INFO` registers.
 */
#define NPA_DEVICE_INFO_WORDS 32

/**
 * Most queues that one device may have.
 */
#define NPA_QUEUES_MAX 16

/**
 * Device class of an accelerated device or plugin. The switch, the landing and the injection
 * carry it but never act on it.
 */
enum NPA_Class
#if __STDC_VERSION__ >= 202311L
  : uint16_t
#endif // __STDC_VERSION__ >= 202311L
 {
        /**
         * A network interface; see `net`.
         */
        NPA_CLASS_NET = 1,
        /**
         * A look-aside crypto device.
         */
        NPA_CLASS_CRYPTO = 2,
};
#if __STDC_VERSION__ >= 202311L
typedef enum NPA_Class NPA_Class;
#else
typedef uint16_t NPA_Class;
#endif // __STDC_VERSION__ >= 202311L

/**
 * Licences under which a plugin may be injected into a Linux guest, all compatible with GPL-2.0.
 */
enum NPA_Licence
#if __STDC_VERSION__ >= 202311L
  : uint16_t
#endif // __STDC_VERSION__ >= 202311L
 {
        /**
         * GPL-2.0-only.
         */
        NPA_LICENCE_GPL2 = 1,
        /**
         * GPL-2.0-or-later.
         */
        NPA_LICENCE_GPL2_OR_LATER = 2,
        /**
         * GPL-2.0-only OR MIT.
         */
        NPA_LICENCE_GPL2_OR_MIT = 3,
        /**
         * GPL-2.0-only OR BSD-2-Clause or BSD-3-Clause.
         */
        NPA_LICENCE_GPL2_OR_BSD = 4,
};
#if __STDC_VERSION__ >= 202311L
typedef enum NPA_Licence NPA_Licence;
#else
typedef uint16_t NPA_Licence;
#endif // __STDC_VERSION__ >= 202311L

/**
 * Answer of an entry or op: zero or positive is success with the meaning written at the op.
 */
typedef int32_t NPA_Status;

/**
 * Words 0-7 of `Instance.device_info` for the net class.
 */
struct NPA_DeviceInfo {
        /**
         * The interface's MAC address.
         */
        uint8_t mac[6];
        /**
         * MTU in bytes, without the Ethernet header.
         */
        uint16_t mtu;
        /**
         * Class-defined, zero.
         */
        uint32_t reserved[6];
};

/**
 * Argument of `Entry`.
 */
struct NPA_EntryCall {
        /**
         * Size of this structure in bytes.
         */
        uint32_t size;
        /**
         * ABI version that the shell speaks in all calls that follow.
         */
        uint16_t abi;
        /**
         * Class whose ops are wanted, a `Class` code.
         */
        uint16_t class_;
        /**
         * The class's ops table to fill, zeroed: `NetOps` for net.
         */
        void *ops;
        /**
         * Bytes behind `ops`.
         */
        uint32_t ops_size;
        /**
         * Zero.
         */
        uint32_t reserved;
};

/**
 * A piece of a received frame.
 */
struct NPA_RxSegment {
        /**
         * Ring slot whose buffer holds it (see `alloc_rx_buffer`). A slot is indicated at most once
         * per filling.
         */
        uint32_t slot;
        /**
         * Where the piece begins in the buffer, in bytes.
         */
        uint32_t offset;
        /**
         * Length in bytes.
         */
        uint32_t length;
};

/**
 * A received frame, without FCS. A frame with `segment_count` 1 and `length` 0 only gives its
 * slot's buffer back (a damaged frame); the shell counts it as an error. A frame with
 * `RX_DISCARD` gives the buffers of all its segments back and is not counted as one.
 */
struct NPA_RxFrame {
        /**
         * `segment_count` segments; read by the shell only during the call.
         */
        const struct NPA_RxSegment *segments;
        /**
         * 1 to `RX_SEGMENTS_MAX`.
         */
        uint16_t segment_count;
        /**
         * `RX_*` flags.
         */
        uint16_t flags;
        /**
         * Length of the whole frame in bytes.
         */
        uint32_t length;
        /**
         * VLAN tag control information.
         */
        uint16_t vlan_tag;
        /**
         * One of `RX_CSUM_*`.
         */
        uint8_t checksum;
        /**
         * One of `RX_GSO_*`.
         */
        uint8_t gso_type;
        /**
         * Payload bytes per merged segment.
         */
        uint16_t gso_size;
        /**
         * With `RX_CSUM_PARTIAL`: where the checksummed range begins.
         */
        uint16_t csum_start;
        /**
         * With `RX_CSUM_PARTIAL`: offset of the checksum field from `csum_start`.
         */
        uint16_t csum_offset;
        /**
         * Length of all headers for a merged frame, or 0 where unknown.
         */
        uint16_t header_length;
        /**
         * RSS hash value.
         */
        uint32_t hash;
};

/**
 * The shell's callbacks. Each is legal only inside an op of the same instance.
 */
struct NPA_ShellApi {
        /**
         * Size of this structure in bytes.
         */
        uint32_t size;
        /**
         * ABI version spoken.
         */
        uint32_t abi;
        /**
         * Net: takes a receive buffer for ring slot `slot` (below the queue's entries) of `queue` and
         * answers its device address, or 0 when there is none. The shell remembers which buffer is in
         * which slot until the slot is indicated or the queue is reinitialised. Legal inside
         * `add_buffers_to_rx_ring`.
         */
        uint64_t (*alloc_rx_buffer)(void *context, uint32_t queue, uint32_t slot);
        /**
         * Net: hands a received frame, with its slots' buffers, to the shell. The frame structure
         * belongs to the caller again on return. Legal inside `check_rx_ring`.
         */
        void (*indicate_recv)(void *context, uint32_t queue, const struct NPA_RxFrame *frame);
        /**
         * Net: the `count` oldest outstanding frames of `queue` are sent. Legal inside
         * `check_tx_ring`.
         */
        void (*complete_send)(void *context, uint32_t queue, uint32_t count);
        /**
         * Writes `length` bytes of UTF-8 at `text` to the guest's log, rate-limited, with the
         * plugin's name before it.
         */
        void (*log)(void *context, uint32_t level, const uint8_t *text, size_t length);
        /**
         * Net: answers the virtual address of the buffer in ring slot `slot` of `queue`, made visible
         * to the CPU, or null for a slot without one. Its `buffer_length` bytes may be read, never
         * written, until the slot is indicated or the op returns. For devices that put metadata
         * before the frame, or hand a sender its own frames. Legal inside `check_rx_ring`.
         */
        const uint8_t *(*peek_rx_buffer)(void *context, uint32_t queue, uint32_t slot);
};

/**
 * Memory of one queue, allocated by the shell, zeroed, DMA-able, contiguous.
 */
struct NPA_QueueMemory {
        /**
         * Virtual address; null for a queue that is not there.
         */
        uint8_t *base;
        /**
         * The same memory's address for the device.
         */
        uint64_t device_address;
        /**
         * Length in bytes, as the header's `RingNeed` asks.
         */
        uint32_t length;
        /**
         * Number of entries, a power of two.
         */
        uint32_t entries;
};

/**
 * One device as a plugin sees it: the first argument of every op. The shell owns it; the plugin
 * owns what `private` and the queues' memory hold.
 */
struct NPA_Instance {
        /**
         * Size of this structure in bytes.
         */
        uint32_t size;
        /**
         * ABI version spoken.
         */
        uint16_t abi;
        /**
         * Number of queues; queue `q` has role `q % role_count`.
         */
        uint16_t queue_count;
        /**
         * The shell's callbacks.
         */
        const struct NPA_ShellApi *shell;
        /**
         * First argument of every callback.
         */
        void *context;
        /**
         * The VF window, uncached device memory; reads ones once the VF is gone.
         */
        uint8_t *window;
        /**
         * Length of the window in bytes.
         */
        uint64_t window_length;
        /**
         * Private memory as the header asks, zeroed before `sw_init`, 64-byte aligned.
         */
        void *private_;
        /**
         * Length of `private` in bytes.
         */
        uint32_t private_length;
        /**
         * Bytes in each receive buffer (net) or zero.
         */
        uint32_t buffer_length;
        /**
         * Vectors that the shell wired, numbered from 0.
         */
        uint32_t vector_count;
        /**
         * Zero.
         */
        uint32_t reserved;
        /**
         * What the hypervisor tells of this VF; words 0-7 belong to the class
         * (`DeviceInfo`), the others to the vendor.
         */
        uint32_t device_info[NPA_DEVICE_INFO_WORDS];
        /**
         * Queue memory, by queue index.
         */
        struct NPA_QueueMemory queues[NPA_QUEUES_MAX];
};

/**
 * A piece of a frame to send.
 */
struct NPA_TxSegment {
        /**
         * Device address of the first byte.
         */
        uint64_t address;
        /**
         * Length in bytes, not zero.
         */
        uint32_t length;
        /**
         * Zero.
         */
        uint32_t reserved;
};

/**
 * A frame to send, without FCS. Lengths and offsets are in bytes.
 */
struct NPA_TxFrame {
        /**
         * `segment_count` segments; legal for the plugin to read only during the call.
         */
        const struct NPA_TxSegment *segments;
        /**
         * 1 to `TX_SEGMENTS_MAX`.
         */
        uint16_t segment_count;
        /**
         * `TX_*` flags.
         */
        uint16_t flags;
        /**
         * Length of the whole frame.
         */
        uint32_t length;
        /**
         * With `TX_TSO`: TCP payload bytes per segment.
         */
        uint16_t mss;
        /**
         * With `TX_VLAN`: the tag control information.
         */
        uint16_t vlan_tag;
        /**
         * Length of the Ethernet header, or where layer 3 begins.
         */
        uint16_t l2_length;
        /**
         * Length of the layer 3 header, extension headers included.
         */
        uint16_t l3_length;
        /**
         * Length of the layer 4 header.
         */
        uint16_t l4_length;
        /**
         * With `TX_CSUM`: where the checksummed range begins.
         */
        uint16_t csum_start;
        /**
         * With `TX_CSUM`: offset of the checksum field from `csum_start`.
         */
        uint16_t csum_offset;
        /**
         * Zero.
         */
        uint16_t reserved;
        /**
         * With `TX_TSO`: virtual address of the frame's headers (`l2_length + l3_length +
         * l4_length` bytes, all within the first segment), for devices that want them changed and
         * so need a copy; the plugin only reads, during the call. Null where the shell cannot tell.
         */
        const uint8_t *headers;
};

/**
 * The ops of a net plugin. `size` and `abi` come first; the plugin fills all that it is given
 * room for. All counts are frames; budgets bound the work of one call.
 */
struct NPA_NetOps {
        /**
         * Bytes that the plugin filled.
         */
        uint32_t size;
        /**
         * ABI version that the plugin will speak.
         */
        uint32_t abi;
        /**
         * Initialises software state only, touching no device register. `OK` or `ERR_CONFIG`.
         */
        NPA_Status (*sw_init)(struct NPA_Instance*);
        /**
         * Zeroes receive ring `queue` and programs it, empty and enabled. Never returns buffers: the
         * shell takes back what it had outstanding. `OK`, `ERR_QUEUE` or `ERR_DEVICE`.
         */
        NPA_Status (*reinit_rx_ring)(struct NPA_Instance*, uint32_t queue);
        /**
         * The same for transmit ring `queue`.
         */
        NPA_Status (*reinit_tx_ring)(struct NPA_Instance*, uint32_t queue);
        /**
         * Arms the interrupt of `queue`: `ARMED` or `WORK_WAITS` (the interrupt may then come as
         * well), or `ERR_QUEUE`.
         */
        NPA_Status (*enable_interrupt)(struct NPA_Instance*, uint32_t queue);
        /**
         * Disarms the interrupt of `queue`. `OK` or `ERR_QUEUE`.
         */
        NPA_Status (*disable_interrupt)(struct NPA_Instance*, uint32_t queue);
        /**
         * Puts up to `count` frames on transmit ring `queue`, in order, with one doorbell at the end.
         * Answers how many were taken (fewer only because the ring is full), or an error.
         */
        NPA_Status (*add_frames_to_tx_ring)(struct NPA_Instance*,
                                            uint32_t queue,
                                            const struct NPA_TxFrame *frames,
                                            uint32_t count);
        /**
         * Reports finished transmits of `queue` by `complete_send`, in the order in which they were
         * given. Answers how many frames it reported.
         */
        NPA_Status (*check_tx_ring)(struct NPA_Instance*, uint32_t queue);
        /**
         * Hands up to `budget` received frames of `queue` to `indicate_recv`. Answers how many,
         * damaged and discarded ones included.
         */
        NPA_Status (*check_rx_ring)(struct NPA_Instance*, uint32_t queue, uint32_t budget);
        /**
         * Fills up to `count` empty slots of receive ring `queue` with buffers from
         * `alloc_rx_buffer`, one doorbell at the end. Answers how many were added; 0 with the ring
         * full or no buffer to be had.
         */
        NPA_Status (*add_buffers_to_rx_ring)(struct NPA_Instance*, uint32_t queue, uint32_t count);
        /**
         * Stops the device's DMA and interrupts for all queues; the last op but one: `check_rx_ring` is
         * called once more, for what the device had finished, and has memory to go by alone. `OK`, or
         * `ERR_DEVICE` when the device does not answer (the hypervisor resets it in any case).
         */
        NPA_Status (*quiesce)(struct NPA_Instance*);
};

/**
 * Ring memory that a queue of one role needs: `fixed + entries * per_entry` bytes.
 */
struct NPA_RingNeed {
        /**
         * Bytes per ring entry.
         */
        uint32_t per_entry;
        /**
         * Bytes beside the entries.
         */
        uint32_t fixed;
        /**
         * Alignment of the ring memory in bytes, a power of two, at most the page size.
         */
        uint32_t align;
        /**
         * Fewest entries, a power of two.
         */
        uint16_t min_entries;
        /**
         * Most entries, a power of two, at most 4096.
         */
        uint16_t max_entries;
};

/**
 * A device that an image serves.
 */
struct NPA_PciId {
        /**
         * PCI vendor id.
         */
        uint16_t vendor;
        /**
         * PCI device id.
         */
        uint16_t device;
};

/**
 * A range of a VF BAR that the plugin needs.
 */
struct NPA_Region {
        /**
         * BAR number, 0-5.
         */
        uint8_t bar;
        /**
         * `REGION_DATA` or `REGION_TRAP`.
         */
        uint8_t kind;
        /**
         * Zero.
         */
        uint16_t reserved;
        /**
         * Where the region begins in the window, in bytes, page-aligned.
         */
        uint32_t window_offset;
        /**
         * Offset in the BAR, in bytes, page-aligned.
         */
        uint64_t offset;
        /**
         * Length in bytes, a multiple of the page size.
         */
        uint64_t length;
};

/**
 * The header. All text fields are UTF-8, zero-padded.
 */
struct NPA_PluginHeader {
        /**
         * `IMAGE_MAGIC`.
         */
        uint8_t magic[8];
        /**
         * Size of this structure in bytes.
         */
        uint32_t header_size;
        /**
         * Oldest ABI version that the plugin speaks.
         */
        uint16_t abi_min;
        /**
         * Newest ABI version that the plugin speaks.
         */
        uint16_t abi_max;
        /**
         * A `Class` code.
         */
        uint16_t class_;
        /**
         * A `Licence` code.
         */
        uint16_t licence;
        /**
         * First MSI-X vector of each role, among the plugin's `vectors`: the interrupt of queue `q`
         * comes on `role_vectors[q % role_count] + (q / role_count) * role_count`. Two roles may
         * share a vector.
         */
        uint16_t role_vectors[NPA_ROLES_MAX];
        /**
         * Plugin name: `[a-z0-9-]`, 1 to 31 bytes.
         */
        uint8_t name[32];
        /**
         * Version as text, 1 to 15 bytes.
         */
        uint8_t version[16];
        /**
         * Length of the image in bytes, this header included; a multiple of the page size.
         */
        uint32_t image_length;
        /**
         * Offset of the entry function in the image, in bytes; it begins with `endbr64`.
         */
        uint32_t entry;
        /**
         * Bytes of private memory per instance, zeroed and 64-byte aligned; at most 64 KiB.
         */
        uint32_t private_length;
        /**
         * Number of valid entries in `roles`; queue `q` of an instance has role `q % role_count`.
         */
        uint16_t role_count;
        /**
         * Most queues per role that the plugin can drive.
         */
        uint16_t queues_per_role;
        /**
         * Ring needs, by role. Net: 0 receive, 1 transmit.
         */
        struct NPA_RingNeed roles[NPA_ROLES_MAX];
        /**
         * MSI-X vectors that the plugin uses.
         */
        uint16_t vectors;
        /**
         * Number of valid entries in `pci_ids`.
         */
        uint16_t pci_id_count;
        /**
         * Number of valid entries in `regions`.
         */
        uint16_t region_count;
        /**
         * Zero.
         */
        uint16_t reserved;
        /**
         * Devices served.
         */
        struct NPA_PciId pci_ids[NPA_PCI_IDS_MAX];
        /**
         * VF regions needed.
         */
        struct NPA_Region regions[NPA_REGIONS_MAX];
        /**
         * SHA-256 of the unrelocated image with this field zeroed; written by the build tool.
         */
        uint8_t sha256[32];
};

/**
 * Answer of `enable_interrupt`: armed, and nothing was waiting.
 */
#define NPA_ARMED 0

/**
 * Answer of `enable_interrupt`: work waits already; poll again.
 */
#define NPA_WORK_WAITS 1

/**
 * Done.
 */
#define NPA_OK 0

/**
 * The ops table or instance handed in is too small or of an ABI that the plugin does not speak.
 */
#define NPA_ERR_ABI -1

/**
 * The instance does not fit: queue count or size, window length, private memory.
 */
#define NPA_ERR_CONFIG -2

/**
 * The device does not answer as it must (reads ones, never finishes a reset).
 */
#define NPA_ERR_DEVICE -3

/**
 * No such queue or vector.
 */
#define NPA_ERR_QUEUE -4





#endif  /* NPA_PLUGIN_H */
