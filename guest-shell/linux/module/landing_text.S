/* SPDX-License-Identifier: GPL-2.0-only OR MIT */
/*
 * The landings: whole pages of the module's read-only, executable text, filled with int3. The
 * hypervisor writes a plugin image there through their guest physical pages; the kernel never
 * maps them writable. Nothing but the shell core calls into them.
 */
#include <linux/linkage.h>
#include <linux/objtool.h>
#include "landing.h"

	.section .text.npa_landing, "ax", @progbits
	.balign 4096, 0xcc
	.globl npa_landing_text
npa_landing_text:
	ANNOTATE_NOENDBR
	.fill NPA_LANDING_SLOTS * NPA_LANDING_BYTES, 1, 0xcc
	.size npa_landing_text, . - npa_landing_text

	.section .note.GNU-stack, "", @progbits
