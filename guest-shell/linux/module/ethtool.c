// SPDX-License-Identifier: GPL-2.0-only OR MIT
/* What ethtool shows: who drives the interface now, and what it did. */
#include <linux/ethtool.h>
#include "device.h"

static void get_drvinfo(struct net_device *netdev, struct ethtool_drvinfo *info)
{
	struct npa_dev *dev = netdev_priv(netdev);

	strscpy(info->driver, KBUILD_MODNAME, sizeof(info->driver));
	strscpy(info->bus_info, pci_name(dev->pdev), sizeof(info->bus_info));
	if (dev->core)
		npa_core_driver(dev->core, (u8 *)info->version, sizeof(info->version));
}

static int get_sset_count(struct net_device *netdev, int set)
{
	return set == ETH_SS_STATS ? npa_core_stat_count() : -EOPNOTSUPP;
}

static void get_strings(struct net_device *netdev, u32 set, u8 *data)
{
	u32 index, count = npa_core_stat_count();

	if (set != ETH_SS_STATS)
		return;
	for (index = 0; index < count; index++)
		npa_core_stat_name(index, data + index * ETH_GSTRING_LEN, ETH_GSTRING_LEN);
}

static void get_stats(struct net_device *netdev, struct ethtool_stats *stats, u64 *values)
{
	struct npa_dev *dev = netdev_priv(netdev);

	if (dev->core)
		npa_core_stats(dev->core, values, stats->n_stats);
}

static void get_ringparam(struct net_device *netdev, struct ethtool_ringparam *ring,
			  struct kernel_ethtool_ringparam *kernel_ring,
			  struct netlink_ext_ack *extack)
{
	struct npa_dev *dev = netdev_priv(netdev);

	ring->rx_max_pending = dev->info.rx_entries;
	ring->tx_max_pending = dev->info.tx_entries;
	ring->rx_pending = dev->info.rx_entries;
	ring->tx_pending = dev->info.tx_entries;
}

/* The speed differs between the paths and a guest must not act on it: none is shown. */
static int get_link_ksettings(struct net_device *netdev, struct ethtool_link_ksettings *settings)
{
	settings->base.speed = SPEED_UNKNOWN;
	settings->base.duplex = DUPLEX_FULL;
	settings->base.port = PORT_OTHER;
	settings->base.autoneg = AUTONEG_DISABLE;
	return 0;
}

const struct ethtool_ops npa_ethtool_ops = {
	.get_drvinfo = get_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_sset_count = get_sset_count,
	.get_strings = get_strings,
	.get_ethtool_stats = get_stats,
	.get_ringparam = get_ringparam,
	.get_link_ksettings = get_link_ksettings,
	.get_ts_info = ethtool_op_get_ts_info,
};
