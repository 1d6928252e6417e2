// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The network interface: one netdev whatever drives it, up and down, address, statistics. */
#include "device.h"

/* Lets frames through. Under RTNL, the core started. */
void npa_up(struct npa_dev *dev)
{
	napi_enable(&dev->napi);
	mutex_lock(&dev->control);
	npa_core_open(dev->core);
	dev->open = true;
	mutex_unlock(&dev->control);
	netif_start_queue(dev->netdev);
	npa_schedule_poll(dev);
}

/* No frame passes any more; what drives the interface stays. Under RTNL. */
void npa_down(struct npa_dev *dev)
{
	if (!dev->open)
		return;
	netif_tx_disable(dev->netdev);
	napi_disable(&dev->napi);
	mutex_lock(&dev->control);
	dev->open = false;
	npa_core_close(dev->core);
	mutex_unlock(&dev->control);
	/* A poll may have woken the queue meanwhile, and nobody is left to hand these on. */
	netif_tx_disable(dev->netdev);
	npa_rx_purge(dev);
}

static int npa_open(struct net_device *netdev)
{
	struct npa_dev *dev = netdev_priv(netdev);

	if (!dev->core)
		return -EIO;	/* it did not come back from suspend */
	npa_up(dev);
	return 0;
}

static int npa_stop(struct net_device *netdev)
{
	npa_down(netdev_priv(netdev));
	return 0;
}

static u64 read_counters(const struct npa_counters *counters, u64 *bytes, u64 *errors)
{
	unsigned int start;
	u64 frames;

	do {
		start = u64_stats_fetch_begin(&counters->sync);
		frames = u64_stats_read(&counters->frames);
		*bytes = u64_stats_read(&counters->bytes);
		*errors = u64_stats_read(&counters->errors);
	} while (u64_stats_fetch_retry(&counters->sync, start));
	return frames;
}

static void npa_get_stats64(struct net_device *netdev, struct rtnl_link_stats64 *stats)
{
	struct npa_dev *dev = netdev_priv(netdev);

	netdev_stats_to_stats64(stats, &netdev->stats);
	stats->rx_packets = read_counters(&dev->rx, &stats->rx_bytes, &stats->rx_errors);
	stats->tx_packets = read_counters(&dev->tx, &stats->tx_bytes, &stats->tx_errors);
}

static void npa_tx_timeout(struct net_device *netdev, unsigned int queue)
{
	struct npa_dev *dev = netdev_priv(netdev);

	netdev_warn(netdev, "transmit queue %u is stuck\n", queue);
	npa_os_schedule_event(dev);
	npa_schedule_poll(dev);
}

static const struct net_device_ops npa_netdev_ops = {
	.ndo_open = npa_open,
	.ndo_stop = npa_stop,
	.ndo_start_xmit = npa_start_xmit,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_get_stats64 = npa_get_stats64,
	.ndo_tx_timeout = npa_tx_timeout,
	.ndo_features_check = npa_features_check,
};

int npa_netdev_setup(struct npa_dev *dev)
{
	struct net_device *netdev = dev->netdev;
	const struct npa_info *info = &dev->info;

	netdev->netdev_ops = &npa_netdev_ops;
	netdev->ethtool_ops = &npa_ethtool_ops;
	netdev->min_mtu = ETH_MIN_MTU;
	netdev->max_mtu = info->mtu;
	netdev->mtu = info->mtu;
	eth_hw_addr_set(netdev, info->mac);

	netdev->features = NETIF_F_SG | NETIF_F_HIGHDMA;
	if (info->flags & NPA_INFO_CSUM)
		netdev->hw_features |= NETIF_F_HW_CSUM;
	if (info->flags & NPA_INFO_TSO4)
		netdev->hw_features |= NETIF_F_TSO;
	if (info->flags & NPA_INFO_TSO6)
		netdev->hw_features |= NETIF_F_TSO6;
	if (info->flags & NPA_INFO_RXCSUM)
		netdev->features |= NETIF_F_RXCSUM;
	if (info->flags & NPA_INFO_RXMERGED)
		netdev->features |= NETIF_F_GRO_HW;
	netdev->features |= netdev->hw_features;
	netdev->vlan_features = netdev->features & ~NETIF_F_RXCSUM;

	npa_os_link_changed(dev, info->flags & NPA_INFO_LINK_UP);
	return register_netdev(netdev);
}

/*
 * Work of its own: it takes RTNL, under which others wait for an event to end. It may run when the
 * interface is down, and does nothing then.
 */
void npa_announce_work(struct work_struct *work)
{
	struct npa_dev *dev = container_of(work, struct npa_dev, announce);

	netdev_notify_peers(dev->netdev);
}

void npa_os_announce(struct npa_dev *dev)
{
	queue_work(npa_workqueue, &dev->announce);
}

void npa_os_link_changed(struct npa_dev *dev, bool up)
{
	if (up)
		netif_carrier_on(dev->netdev);
	else
		netif_carrier_off(dev->netdev);
}
