/* Faults of PCI functions: what they are, and what the module's parts know of each other. */
#ifndef VH_FAULT_H
#define VH_FAULT_H

#include <linux/spinlock.h>
#include <linux/types.h>

#define MOST_FAULTS 64
#define LOG_BYTES (64 * 1024)
#define FOR_GOOD S64_MAX
/* Where the capability of power management is put: free in the functions of the card. */
#define POWER_AT 0xe0

enum kind { DEAD, DIES_AT_RESET, SLOW, REFUSES, POWERED, WATCHED };

/* Of the function at `domain`, `bus` and `devfn`, or of all functions below that bridge. */
struct fault {
	enum kind kind;
	bool below;
	int domain;
	u8 bus;
	u8 devfn;
	/* How long it is dead (0: for good), or what each access takes. */
	u32 ms;
	/* DEAD: milliseconds of the monotonic clock. */
	s64 until;
	/* POWERED: in which state, 0 for D0 to 3 for D3hot. */
	u8 state;
	/* WATCHED: accesses so far. */
	u32 reads;
	u32 writes;
};

/* Configuration space is read and written with interrupts off: `fault_lock` protects all that follows. */
extern raw_spinlock_t fault_lock;
extern struct fault faults[MOST_FAULTS];
extern unsigned int fault_count;
extern char fault_log[LOG_BYTES];
extern size_t fault_log_length;
extern unsigned int fault_log_lost;

s64 now_ms(void);
void forget_healed(void);

void add_files(void);
void remove_files(void);

#endif
