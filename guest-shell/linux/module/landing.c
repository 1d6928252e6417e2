// SPDX-License-Identifier: GPL-2.0-only OR MIT
/*
 * Hands out the landings. It never writes to one: their content is the hypervisor's, and whether
 * an image may run is decided by the shell core.
 */
#include <linux/bitops.h>
#include <linux/io.h>
#include <linux/moduleparam.h>
#include <linux/vmalloc.h>
#include "landing.h"

extern u8 npa_landing_text[];

static bool inject = true;
module_param(inject, bool, 0444);
MODULE_PARM_DESC(inject, "let the hypervisor inject vendor plugins (default: yes)");

static unsigned int landings = NPA_LANDING_SLOTS;
module_param(landings, uint, 0444);
MODULE_PARM_DESC(landings, "devices that may be accelerated at a time (0 to 4, default: 4)");

static struct npa_landing slots[NPA_LANDING_SLOTS];
static DECLARE_BITMAP(taken, NPA_LANDING_SLOTS);

struct npa_landing *npa_landing_take(void)
{
	unsigned int usable = min_t(unsigned int, landings, NPA_LANDING_SLOTS);
	struct npa_landing *landing;
	unsigned int slot, page;

	if (!inject)
		return NULL;
	do {
		slot = find_first_zero_bit(taken, usable);
		if (slot >= usable)
			return NULL;
	} while (test_and_set_bit(slot, taken));

	landing = &slots[slot];
	landing->base = npa_landing_text + slot * NPA_LANDING_BYTES;
	for (page = 0; page < ARRAY_SIZE(landing->pages); page++)
		landing->pages[page] =
			PFN_PHYS(vmalloc_to_pfn(landing->base + page * PAGE_SIZE));
	return landing;
}

void npa_landing_give(struct npa_landing *landing)
{
	if (landing)
		clear_bit(landing - slots, taken);
}
