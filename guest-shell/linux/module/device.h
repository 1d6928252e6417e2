/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* One accelerated network device, as the C layer sees it. */
#ifndef NPA_DEVICE_H
#define NPA_DEVICE_H

#include <linux/etherdevice.h>
#include <linux/llist.h>
#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/pci.h>
#include <linux/spinlock.h>
#include <linux/u64_stats_sync.h>
#include <linux/workqueue.h>
#include "core.h"
#include "landing.h"

/* An MSI-X vector. */
struct npa_vector {
	char name[IFNAMSIZ + 16];
	bool wired;
};

/* Frames and bytes of one direction; written by one context at a time. */
struct npa_counters {
	u64_stats_t frames;
	u64_stats_t bytes;
	u64_stats_t errors;
	struct u64_stats_sync sync;
};

/* A frame on its way out. Free ones wait in npa_dev.tx_free. */
struct npa_tx {
	struct llist_node free;
	struct sk_buff *skb;
	u32 segment_count;
	struct npa_tx_segment segments[NPA_SEGMENTS_MAX];
};

struct npa_dev {
	struct pci_dev *pdev;
	struct net_device *netdev;
	struct npa_core *core;
	struct npa_info info;
	struct npa_landing *landing;
	void __iomem *bars[PCI_STD_NUM_BARS];

	/* Control side: calls of the core that may sleep, one at a time. */
	struct mutex control;
	struct work_struct event;
	struct work_struct announce;
	bool open;		/* frames pass; under control and RTNL */

	/* MSI-X: vector 0 reports events, the others work on the data path. */
	unsigned int vector_count;
	struct npa_vector *vectors;

	/* Data path. The lock guards the core's path state and rx_ready. */
	struct napi_struct napi ____cacheline_aligned;
	spinlock_t path;
	struct sk_buff_head rx_ready;	/* received, waiting for the poll to hand them on */
	struct npa_tx *tx_frames;
	struct llist_head tx_free;
	struct npa_counters rx;
	struct npa_counters tx;
};

extern struct pci_driver npa_driver;
extern struct workqueue_struct *npa_workqueue;
extern const struct ethtool_ops npa_ethtool_ops;

/* Whether the device carries the vendor capability of an NPA device. */
bool npa_is_ours(struct pci_dev *pdev);

/* netdev.c */
int npa_netdev_setup(struct npa_dev *dev);
void npa_up(struct npa_dev *dev);
void npa_down(struct npa_dev *dev);
void npa_announce_work(struct work_struct *work);

/* transmit.c */
int npa_tx_setup(struct npa_dev *dev);
void npa_tx_teardown(struct npa_dev *dev);
netdev_features_t npa_features_check(struct sk_buff *skb, struct net_device *netdev,
				     netdev_features_t features);
netdev_tx_t npa_start_xmit(struct sk_buff *skb, struct net_device *netdev);

/* receive.c */
void npa_rx_setup(struct npa_dev *dev);
void npa_rx_teardown(struct npa_dev *dev);
void npa_rx_purge(struct npa_dev *dev);
void npa_schedule_poll(struct npa_dev *dev);

/* vectors.c */
int npa_vectors_setup(struct npa_dev *dev);
void npa_vectors_teardown(struct npa_dev *dev);

static inline void npa_count(struct npa_counters *counters, unsigned int bytes)
{
	u64_stats_update_begin(&counters->sync);
	u64_stats_inc(&counters->frames);
	u64_stats_add(&counters->bytes, bytes);
	u64_stats_update_end(&counters->sync);
}

static inline void npa_count_error(struct npa_counters *counters)
{
	u64_stats_update_begin(&counters->sync);
	u64_stats_inc(&counters->errors);
	u64_stats_update_end(&counters->sync);
}

#endif /* NPA_DEVICE_H */
