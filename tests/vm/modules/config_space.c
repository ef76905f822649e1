/*
 * Faults of PCI functions, as configuration space shows them: functions that read all ones and hear no write, for a
 * time or for good, from now on or from the next reset of their bus on; slow ones; those that do not change their
 * power state; and a log of what is written.
 *
 * QEMU's functions have no power management, without which the kernel waits for no function after a reset. Those
 * named in `powered` have it once they are found anew.
 *
 * Everything is seen and set in /sys/kernel/debug/vh_fault/. ../README.md lists the files.
 */
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>

#include "vh_fault.h"

DEFINE_RAW_SPINLOCK(fault_lock);
struct fault faults[MOST_FAULTS];
unsigned int fault_count;
char fault_log[LOG_BYTES];
size_t fault_log_length;
unsigned int fault_log_lost;

static struct pci_ops *original;
static struct pci_ops faulty;

s64 now_ms(void)
{
	return ktime_to_ms(ktime_get());
}

/* Accesses */

static bool is_at(const struct fault *fault, struct pci_bus *bus, unsigned int devfn)
{
	return fault->domain == pci_domain_nr(bus) && fault->bus == bus->number && fault->devfn == devfn;
}

static bool concerns(const struct fault *fault, struct pci_bus *bus, unsigned int devfn)
{
	if (!fault->below)
		return is_at(fault, bus, devfn);
	for (; bus->self; bus = bus->parent)
		if (is_at(fault, bus->parent, bus->self->devfn))
			return true;
	return false;
}

struct verdict {
	bool dead;
	bool powered;
	u8 state;
	u32 slow_ms;
};

/* With the lock. Faults whose time is over are gone. */
void forget_healed(void)
{
	s64 now = now_ms();
	unsigned int i, kept = 0;

	for (i = 0; i < fault_count; i++)
		if (faults[i].kind != DEAD || faults[i].until > now)
			faults[kept++] = faults[i];
	fault_count = kept;
}

/* With the lock. */
static struct verdict judge(struct pci_bus *bus, unsigned int devfn, bool writes)
{
	struct verdict verdict = {};
	unsigned int i;

	forget_healed();
	for (i = 0; i < fault_count; i++) {
		struct fault *fault = &faults[i];

		if (!concerns(fault, bus, devfn))
			continue;
		if (fault->kind == DEAD)
			verdict.dead = true;
		if (fault->kind == SLOW)
			verdict.slow_ms = max(verdict.slow_ms, fault->ms);
		if (fault->kind == POWERED) {
			verdict.powered = true;
			verdict.state = fault->state;
		}
		if (fault->kind == WATCHED && writes)
			fault->writes++;
		else if (fault->kind == WATCHED)
			fault->reads++;
	}
	return verdict;
}

/* With the lock: is it watched? Then the write is logged, heard or not. */
static void log_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value, bool dead)
{
	unsigned int i;
	int length;

	for (i = 0; i < fault_count; i++)
		if (faults[i].kind == WATCHED && concerns(&faults[i], bus, devfn))
			break;
	if (i == fault_count)
		return;
	length = scnprintf(fault_log + fault_log_length, LOG_BYTES - fault_log_length,
			   "%lld %04x:%02x:%02x.%x %02x %0*x %s %s\n",
			   ktime_to_us(ktime_get()), pci_domain_nr(bus), bus->number, PCI_SLOT(devfn),
			   PCI_FUNC(devfn), where, size * 2, value, dead ? "lost" : "ok", current->comm);
	if (length && fault_log[fault_log_length + length - 1] == '\n')
		fault_log_length += length;
	else
		fault_log_lost++;
}

/* With the lock. */
static void set_power_state(struct pci_bus *bus, unsigned int devfn, u8 state)
{
	unsigned int i;

	for (i = 0; i < fault_count; i++)
		if (faults[i].kind == REFUSES && concerns(&faults[i], bus, devfn))
			return;
	for (i = 0; i < fault_count; i++)
		if (faults[i].kind == POWERED && concerns(&faults[i], bus, devfn))
			faults[i].state = state;
}

/* With the lock: this write resets the bus below a bridge. What was to die of that is dead. */
static void begin_reset(struct pci_bus *bus, unsigned int devfn)
{
	u32 type, buses;
	u8 first, last;
	unsigned int i;

	original->read(bus, devfn, PCI_HEADER_TYPE, 1, &type);
	if ((type & PCI_HEADER_TYPE_MASK) != PCI_HEADER_TYPE_BRIDGE)
		return;
	original->read(bus, devfn, PCI_PRIMARY_BUS, 4, &buses);
	first = buses >> 8;
	last = buses >> 16;
	for (i = 0; i < fault_count; i++) {
		struct fault *fault = &faults[i];

		if (fault->domain != pci_domain_nr(bus))
			continue;
		if ((fault->bus < first || fault->bus > last) && !(fault->below && is_at(fault, bus, devfn)))
			continue;
		if (fault->kind == POWERED)
			fault->state = 0;
		if (fault->kind != DIES_AT_RESET)
			continue;
		fault->kind = DEAD;
		fault->until = fault->ms ? now_ms() + fault->ms : FOR_GOOD;
	}
}

/* One byte of a function with power management, where QEMU's has `byte`. */
static u8 with_power(struct pci_bus *bus, unsigned int devfn, u8 state, int at, u8 byte)
{
	/* Nothing but D0 and D3hot, version 3; what is set stays set in D3hot, as with AMD's cards. */
	const u8 capability[] = { PCI_CAP_ID_PM, 0, 3, 0, state | PCI_PM_CTRL_NO_SOFT_RESET, 0, 0, 0 };
	u32 status, next = 0;

	if (at == PCI_STATUS)
		return byte | PCI_STATUS_CAP_LIST;
	if (at == PCI_CAPABILITY_LIST)
		return POWER_AT;
	if (at == POWER_AT + PCI_CAP_LIST_NEXT) {
		original->read(bus, devfn, PCI_STATUS, 2, &status);
		if (status & PCI_STATUS_CAP_LIST)
			original->read(bus, devfn, PCI_CAPABILITY_LIST, 1, &next);
		return next;
	}
	if (at >= POWER_AT && at < POWER_AT + PCI_PM_SIZEOF)
		return capability[at - POWER_AT];
	return byte;
}

/* As hardware that answers late: whoever asks waits, and does nothing else. mdelay is too short under emulation. */
static void wait_for_answer(u32 ms)
{
	ktime_t end = ktime_add_ms(ktime_get(), ms);

	while (ktime_before(ktime_get(), end))
		cpu_relax();
}

static int faulty_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	struct verdict verdict;
	unsigned long flags;
	int i, result;
	u32 byte;

	raw_spin_lock_irqsave(&fault_lock, flags);
	verdict = judge(bus, devfn, false);
	raw_spin_unlock_irqrestore(&fault_lock, flags);

	if (verdict.slow_ms)
		wait_for_answer(verdict.slow_ms);
	if (verdict.dead) {
		PCI_SET_ERROR_RESPONSE(value);
		return PCIBIOS_SUCCESSFUL;
	}
	result = original->read(bus, devfn, where, size, value);
	for (i = 0; !result && verdict.powered && i < size; i++) {
		byte = with_power(bus, devfn, verdict.state, where + i, *value >> 8 * i);
		*value = (*value & ~(0xffu << 8 * i)) | byte << 8 * i;
	}
	return result;
}

static int faulty_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	bool resets = where <= PCI_BRIDGE_CONTROL && where + size > PCI_BRIDGE_CONTROL &&
		      value >> 8 * (PCI_BRIDGE_CONTROL - where) & PCI_BRIDGE_CTL_BUS_RESET;
	struct verdict verdict;
	unsigned long flags;
	bool power;

	raw_spin_lock_irqsave(&fault_lock, flags);
	verdict = judge(bus, devfn, true);
	power = verdict.powered && where >= POWER_AT && where < POWER_AT + PCI_PM_SIZEOF;
	log_write(bus, devfn, where, size, value, verdict.dead);
	if (resets && !verdict.dead)
		begin_reset(bus, devfn);
	if (power && !verdict.dead && where == POWER_AT + PCI_PM_CTRL)
		set_power_state(bus, devfn, value & PCI_PM_CTRL_STATE_MASK);
	raw_spin_unlock_irqrestore(&fault_lock, flags);

	if (verdict.slow_ms)
		wait_for_answer(verdict.slow_ms);
	if (verdict.dead || power)
		return PCIBIOS_SUCCESSFUL;
	return original->write(bus, devfn, where, size, value);
}

/* Buses */

static void set_ops(struct pci_bus *bus, struct pci_ops *from, struct pci_ops *to)
{
	struct pci_bus *child;

	if (bus->ops == from)
		pci_bus_set_ops(bus, to);
	list_for_each_entry(child, &bus->children, node)
		set_ops(child, from, to);
}

/* A bus that is found later has the operations of the one above it: it is faulty too, and mended with the others. */
static void set_all_ops(struct pci_ops *from, struct pci_ops *to)
{
	struct pci_bus *root = NULL;

	pci_lock_rescan_remove();
	while ((root = pci_find_next_bus(root)))
		set_ops(root, from, to);
	pci_unlock_rescan_remove();
}

static int __init start(void)
{
	struct pci_bus *root = pci_find_next_bus(NULL);

	if (!root)
		return -ENODEV;
	original = root->ops;
	faulty = *original;
	faulty.read = faulty_read;
	faulty.write = faulty_write;

	add_files();
	set_all_ops(original, &faulty);
	return 0;
}

static void __exit end(void)
{
	remove_files();
	set_all_ops(&faulty, original);
	/* Nobody is on the way through the functions above any more. */
	synchronize_rcu_tasks();
}

module_init(start);
module_exit(end);
MODULE_DESCRIPTION("Faults of PCI functions for the tests of vfio-hook");
MODULE_LICENSE("Dual MIT/GPL");
