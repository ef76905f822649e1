/*
 * Faults of PCI functions, as configuration space shows them: functions that read all ones and hear no write, for a
 * time or for good, from now on or from the next reset of their bus on; slow ones; and a log of what is written.
 *
 * Everything is seen and set in /sys/kernel/debug/vh_fault/. ../README.md lists the files.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>

#define MOST_FAULTS 64
#define LOG_BYTES (64 * 1024)
#define FOR_GOOD S64_MAX

enum kind { DEAD, DIES_AT_RESET, SLOW, WATCHED };

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
	/* WATCHED: accesses so far. */
	u32 reads;
	u32 writes;
};

/* Configuration space is read and written with interrupts off: `lock` protects all that follows. */
static DEFINE_RAW_SPINLOCK(lock);
static struct fault faults[MOST_FAULTS];
static unsigned int count;
static char log[LOG_BYTES];
static size_t log_length;
static unsigned int log_lost;

static struct pci_ops *original;
static struct pci_ops faulty;
static struct dentry *folder;

static s64 now_ms(void)
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
	u32 slow_ms;
};

/* With the lock. Faults whose time is over are gone. */
static void forget_healed(void)
{
	s64 now = now_ms();
	unsigned int i, kept = 0;

	for (i = 0; i < count; i++)
		if (faults[i].kind != DEAD || faults[i].until > now)
			faults[kept++] = faults[i];
	count = kept;
}

/* With the lock. */
static struct verdict judge(struct pci_bus *bus, unsigned int devfn, bool writes)
{
	struct verdict verdict = {};
	unsigned int i;

	forget_healed();
	for (i = 0; i < count; i++) {
		struct fault *fault = &faults[i];

		if (!concerns(fault, bus, devfn))
			continue;
		if (fault->kind == DEAD)
			verdict.dead = true;
		if (fault->kind == SLOW)
			verdict.slow_ms = max(verdict.slow_ms, fault->ms);
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

	for (i = 0; i < count; i++)
		if (faults[i].kind == WATCHED && concerns(&faults[i], bus, devfn))
			break;
	if (i == count)
		return;
	length = scnprintf(log + log_length, LOG_BYTES - log_length, "%lld %04x:%02x:%02x.%x %02x %0*x %s %s\n",
			   ktime_to_us(ktime_get()), pci_domain_nr(bus), bus->number, PCI_SLOT(devfn),
			   PCI_FUNC(devfn), where, size * 2, value, dead ? "lost" : "ok", current->comm);
	if (length && log[log_length + length - 1] == '\n')
		log_length += length;
	else
		log_lost++;
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
	for (i = 0; i < count; i++) {
		struct fault *fault = &faults[i];

		if (fault->kind != DIES_AT_RESET || fault->domain != pci_domain_nr(bus))
			continue;
		if ((fault->bus < first || fault->bus > last) && !(fault->below && is_at(fault, bus, devfn)))
			continue;
		fault->kind = DEAD;
		fault->until = fault->ms ? now_ms() + fault->ms : FOR_GOOD;
	}
}

/* As hardware that answers late: whoever asks waits, and does nothing else. */
static int faulty_read(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 *value)
{
	struct verdict verdict;
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	verdict = judge(bus, devfn, false);
	raw_spin_unlock_irqrestore(&lock, flags);

	if (verdict.slow_ms)
		mdelay(verdict.slow_ms);
	if (!verdict.dead)
		return original->read(bus, devfn, where, size, value);
	PCI_SET_ERROR_RESPONSE(value);
	return PCIBIOS_SUCCESSFUL;
}

static int faulty_write(struct pci_bus *bus, unsigned int devfn, int where, int size, u32 value)
{
	bool resets = where <= PCI_BRIDGE_CONTROL && where + size > PCI_BRIDGE_CONTROL &&
		      value >> 8 * (PCI_BRIDGE_CONTROL - where) & PCI_BRIDGE_CTL_BUS_RESET;
	struct verdict verdict;
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	verdict = judge(bus, devfn, true);
	log_write(bus, devfn, where, size, value, verdict.dead);
	if (resets && !verdict.dead)
		begin_reset(bus, devfn);
	raw_spin_unlock_irqrestore(&lock, flags);

	if (verdict.slow_ms)
		mdelay(verdict.slow_ms);
	return verdict.dead ? PCIBIOS_SUCCESSFUL : original->write(bus, devfn, where, size, value);
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

/* Files */

/* parse(TEXT, FAULT): "[below ]ADDRESS[ MILLISECONDS]" */
static int parse(const char *text, struct fault *fault)
{
	static const char below[] = "below ";
	unsigned int domain, bus, slot, function;
	int end = 0;

	fault->below = !strncmp(text, below, strlen(below));
	if (fault->below)
		text += strlen(below);
	if (sscanf(text, "%x:%x:%x.%x%n", &domain, &bus, &slot, &function, &end) != 4 || !end)
		return -EINVAL;
	if (bus > 0xff || slot > 0x1f || function > 7)
		return -EINVAL;
	fault->domain = domain;
	fault->bus = bus;
	fault->devfn = PCI_DEVFN(slot, function);
	text = skip_spaces(text + end);
	return *text ? kstrtou32(text, 10, &fault->ms) : 0;
}

static bool same_place(const struct fault *a, const struct fault *b)
{
	return a->below == b->below && a->domain == b->domain && a->bus == b->bus && a->devfn == b->devfn;
}

static int add(const struct fault *fault)
{
	unsigned long flags;
	unsigned int i;
	int error = 0;

	raw_spin_lock_irqsave(&lock, flags);
	forget_healed();
	for (i = 0; i < count; i++)
		if (faults[i].kind == fault->kind && same_place(&faults[i], fault))
			break;
	if (i < MOST_FAULTS) {
		faults[i] = *fault;
		count = max(count, i + 1);
	} else {
		error = -ENOSPC;
	}
	raw_spin_unlock_irqrestore(&lock, flags);
	return error;
}

/* Copies a line that somebody wrote, without its end. */
static int line_from_user(char *text, size_t size, const char __user *from, size_t length)
{
	if (length >= size)
		return -EINVAL;
	if (copy_from_user(text, from, length))
		return -EFAULT;
	text[length] = 0;
	strim(text);
	return 0;
}

static ssize_t fault_write(struct file *file, const char __user *from, size_t length, loff_t *at)
{
	struct fault fault = { .kind = (uintptr_t)file_inode(file)->i_private };
	char text[48];
	int error = line_from_user(text, sizeof(text), from, length) ?: parse(text, &fault);

	if (error)
		return error;
	if (fault.kind == SLOW && !fault.ms)
		return -EINVAL;
	fault.until = fault.ms ? now_ms() + fault.ms : FOR_GOOD;
	return add(&fault) ?: length;
}

static int fault_show(struct seq_file *to, void *unused)
{
	enum kind kind = (uintptr_t)to->private;
	unsigned long flags;
	unsigned int i;

	raw_spin_lock_irqsave(&lock, flags);
	forget_healed();
	for (i = 0; i < count; i++) {
		const struct fault *fault = &faults[i];

		if (fault->kind != kind)
			continue;
		seq_printf(to, "%s%04x:%02x:%02x.%x", fault->below ? "below " : "", fault->domain, fault->bus,
			   PCI_SLOT(fault->devfn), PCI_FUNC(fault->devfn));
		if (kind == WATCHED)
			seq_printf(to, " reads %u writes %u", fault->reads, fault->writes);
		else if (fault->ms)
			seq_printf(to, " %lld", kind == DEAD ? fault->until - now_ms() : fault->ms);
		seq_putc(to, '\n');
	}
	raw_spin_unlock_irqrestore(&lock, flags);
	return 0;
}

static int fault_open(struct inode *inode, struct file *file)
{
	return single_open(file, fault_show, inode->i_private);
}

static const struct file_operations fault_file = {
	.owner = THIS_MODULE,
	.open = fault_open,
	.read = seq_read,
	.write = fault_write,
	.llseek = seq_lseek,
	.release = single_release,
};

/* "all", or a place. What is watched stays so. */
static ssize_t heal_write(struct file *file, const char __user *from, size_t length, loff_t *at)
{
	struct fault place = {};
	char text[48];
	int error = line_from_user(text, sizeof(text), from, length);
	bool all = !error && !strcmp(text, "all");
	unsigned int i, kept = 0;
	unsigned long flags;

	if (!error && !all)
		error = parse(text, &place);
	if (error)
		return error;
	raw_spin_lock_irqsave(&lock, flags);
	for (i = 0; i < count; i++)
		if (faults[i].kind == WATCHED || !(all || same_place(&faults[i], &place)))
			faults[kept++] = faults[i];
	count = kept;
	raw_spin_unlock_irqrestore(&lock, flags);
	return length;
}

static const struct file_operations heal_file = {
	.owner = THIS_MODULE,
	.write = heal_write,
};

/* The log only grows, but for somebody who empties it: what is there stays as it is. */
static ssize_t log_read(struct file *file, char __user *to, size_t length, loff_t *at)
{
	size_t end = READ_ONCE(log_length);
	unsigned int missing = READ_ONCE(log_lost);
	char lost[24];
	loff_t after;
	ssize_t done = simple_read_from_buffer(to, length, at, log, end);

	if (!done && missing && *at >= end) {
		after = *at - end;
		done = simple_read_from_buffer(to, length, &after, lost,
					       scnprintf(lost, sizeof(lost), "lost %u\n", missing));
		*at = end + after;
	}
	return done;
}

static ssize_t log_empty(struct file *file, const char __user *from, size_t length, loff_t *at)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&lock, flags);
	log_length = 0;
	log_lost = 0;
	raw_spin_unlock_irqrestore(&lock, flags);
	return length;
}

static const struct file_operations log_file = {
	.owner = THIS_MODULE,
	.read = log_read,
	.write = log_empty,
	.llseek = default_llseek,
};

static void add_file(const char *name, enum kind kind)
{
	debugfs_create_file(name, 0600, folder, (void *)(uintptr_t)kind, &fault_file);
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

	folder = debugfs_create_dir("vh_fault", NULL);
	add_file("dead", DEAD);
	add_file("dies_at_reset", DIES_AT_RESET);
	add_file("slow", SLOW);
	add_file("watch", WATCHED);
	debugfs_create_file("heal", 0200, folder, NULL, &heal_file);
	debugfs_create_file("log", 0600, folder, NULL, &log_file);
	set_all_ops(original, &faulty);
	return 0;
}

static void __exit end(void)
{
	debugfs_remove_recursive(folder);
	set_all_ops(&faulty, original);
	/* Nobody is on the way through the functions above any more. */
	synchronize_rcu_tasks();
}

module_init(start);
module_exit(end);
MODULE_DESCRIPTION("Faults of PCI functions for the tests of vfio-hook");
MODULE_LICENSE("Dual MIT/GPL");
