/* The files of faults in debugfs, and what is written into them. */
#include <linux/debugfs.h>
#include <linux/pci.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>

#include "vh_fault.h"

static struct dentry *folder;

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

	raw_spin_lock_irqsave(&fault_lock, flags);
	forget_healed();
	for (i = 0; i < fault_count; i++)
		if (faults[i].kind == fault->kind && same_place(&faults[i], fault))
			break;
	if (i < MOST_FAULTS) {
		faults[i] = *fault;
		fault_count = max(fault_count, i + 1);
	} else {
		error = -ENOSPC;
	}
	raw_spin_unlock_irqrestore(&fault_lock, flags);
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

	raw_spin_lock_irqsave(&fault_lock, flags);
	forget_healed();
	for (i = 0; i < fault_count; i++) {
		const struct fault *fault = &faults[i];

		if (fault->kind != kind)
			continue;
		seq_printf(to, "%s%04x:%02x:%02x.%x", fault->below ? "below " : "", fault->domain, fault->bus,
			   PCI_SLOT(fault->devfn), PCI_FUNC(fault->devfn));
		if (kind == POWERED)
			seq_printf(to, " D%u", fault->state);
		else if (kind == WATCHED)
			seq_printf(to, " reads %u writes %u", fault->reads, fault->writes);
		else if (fault->ms)
			seq_printf(to, " %lld", kind == DEAD ? fault->until - now_ms() : fault->ms);
		seq_putc(to, '\n');
	}
	raw_spin_unlock_irqrestore(&fault_lock, flags);
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

/* "all", or a place. What has power management keeps it, and what is watched stays so. */
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
	raw_spin_lock_irqsave(&fault_lock, flags);
	for (i = 0; i < fault_count; i++)
		if (faults[i].kind == POWERED || faults[i].kind == WATCHED ||
		    !(all || same_place(&faults[i], &place)))
			faults[kept++] = faults[i];
	fault_count = kept;
	raw_spin_unlock_irqrestore(&fault_lock, flags);
	return length;
}

static const struct file_operations heal_file = {
	.owner = THIS_MODULE,
	.write = heal_write,
};

/* The log only grows, but for somebody who empties it: what is there stays as it is. */
static ssize_t log_read(struct file *file, char __user *to, size_t length, loff_t *at)
{
	size_t end = READ_ONCE(fault_log_length);
	unsigned int missing = READ_ONCE(fault_log_lost);
	char lost[24];
	loff_t after;
	ssize_t done = simple_read_from_buffer(to, length, at, fault_log, end);

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

	raw_spin_lock_irqsave(&fault_lock, flags);
	fault_log_length = 0;
	fault_log_lost = 0;
	raw_spin_unlock_irqrestore(&fault_lock, flags);
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

void add_files(void)
{
	folder = debugfs_create_dir("vh_fault", NULL);
	add_file("dead", DEAD);
	add_file("dies_at_reset", DIES_AT_RESET);
	add_file("slow", SLOW);
	add_file("refuses", REFUSES);
	add_file("powered", POWERED);
	add_file("watch", WATCHED);
	debugfs_create_file("heal", 0200, folder, NULL, &heal_file);
	debugfs_create_file("log", 0600, folder, NULL, &log_file);
}

void remove_files(void)
{
	debugfs_remove_recursive(folder);
}
