// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* The network interface: one netdev whatever drives it, up and down, address, statistics. */
#include <linux/rtnetlink.h>
#include "device.h"

/* Frames between interrupts while traffic flows: see docs of napi_defer_hard_irqs. */
#define DEFER_POLLS 0
#define DEFER_NS 0

int npa_up(struct npa_dev *dev)
{
	int err;

	mutex_lock(&dev->control);
	err = npa_core_start(dev->core);
	if (!err)
		dev->running = true;
	mutex_unlock(&dev->control);
	if (err)
		return err;
	napi_enable(&dev->napi);
	netif_start_queue(dev->netdev);
	npa_schedule_poll(dev);
	npa_os_schedule_event(dev);
	return 0;
}

void npa_down(struct npa_dev *dev)
{
	mutex_lock(&dev->control);
	if (dev->running) {
		netif_tx_disable(dev->netdev);
		npa_core_stop(dev->core);
		dev->running = false;
		napi_disable(&dev->napi);
		netif_carrier_off(dev->netdev);
		/* Nobody is left to hand these on. */
		__skb_queue_purge(&dev->rx_ready);
	}
	mutex_unlock(&dev->control);
}

static int npa_open(struct net_device *netdev)
{
	return npa_up(netdev_priv(netdev));
}

static int npa_stop(struct net_device *netdev)
{
	npa_down(netdev_priv(netdev));
	return 0;
}

static int npa_set_mac_address(struct net_device *netdev, void *data)
{
	struct npa_dev *dev = netdev_priv(netdev);
	const struct sockaddr *address = data;
	int err = eth_prepare_mac_addr_change(netdev, data);

	if (err)
		return err;
	if (!(dev->info.features & NPA_F_SET_MAC))
		return -EOPNOTSUPP;
	mutex_lock(&dev->control);
	err = npa_core_set_mac(dev->core, address->sa_data);
	mutex_unlock(&dev->control);
	if (!err)
		eth_commit_mac_addr_change(netdev, data);
	return err;
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
	.ndo_set_mac_address = npa_set_mac_address,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_get_stats64 = npa_get_stats64,
	.ndo_tx_timeout = npa_tx_timeout,
	.ndo_features_check = passthru_features_check,
};

int npa_netdev_setup(struct npa_dev *dev)
{
	struct net_device *netdev = dev->netdev;
	const struct npa_info *info = &dev->info;

	netdev->netdev_ops = &npa_netdev_ops;
	netdev->ethtool_ops = &npa_ethtool_ops;
	netdev->min_mtu = ETH_MIN_MTU;
	netdev->max_mtu = info->max_mtu;
	netdev->mtu = info->mtu;
	eth_hw_addr_set(netdev, info->mac);

	netdev->features = NETIF_F_SG | NETIF_F_HIGHDMA;
	if (info->features & NPA_F_CSUM)
		netdev->hw_features |= NETIF_F_HW_CSUM;
	if (info->features & NPA_F_TSO4)
		netdev->hw_features |= NETIF_F_TSO;
	if (info->features & NPA_F_TSO6)
		netdev->hw_features |= NETIF_F_TSO6;
	if (info->features & NPA_F_RXCSUM)
		netdev->features |= NETIF_F_RXCSUM;
	if (info->features & NPA_F_GRO_HW)
		netdev->features |= NETIF_F_GRO_HW;
	netdev->features |= netdev->hw_features;
	netdev->vlan_features = netdev->features & ~NETIF_F_RXCSUM;

	netdev->napi_defer_hard_irqs = DEFER_POLLS;
	netdev->gro_flush_timeout = DEFER_NS;
	netif_carrier_off(netdev);
	return register_netdev(netdev);
}

void npa_os_link_changed(struct npa_dev *dev, bool up)
{
	if (up)
		netif_carrier_on(dev->netdev);
	else
		netif_carrier_off(dev->netdev);
}
