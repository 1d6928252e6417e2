/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/* Where plugin images land in the module's own text. Included from assembler too. */
#ifndef NPA_LANDING_H
#define NPA_LANDING_H

/* Landings in the module: one for each device that may be accelerated at a time. */
#define NPA_LANDING_SLOTS 4
/* Bytes of one landing: what a host asks for unless told otherwise. */
#define NPA_LANDING_BYTES 65536

#ifndef __ASSEMBLY__
#include <linux/mm.h>

/* A range of text that one device's plugin may occupy. */
struct npa_landing {
	u8 *base;
	u64 pages[NPA_LANDING_BYTES / PAGE_SIZE];
};

/* Takes a free landing; NULL when there is none or injection is switched off. Process context. */
struct npa_landing *npa_landing_take(void);

/* Gives a landing back after filling it with int3 again is the host's work. NULL is ignored. */
void npa_landing_give(struct npa_landing *landing);

#endif /* __ASSEMBLY__ */
#endif /* NPA_LANDING_H */
