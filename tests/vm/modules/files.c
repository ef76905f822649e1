/* The test monitor's files in debugfs: its knobs, its EDID and its log. */
#include <linux/debugfs.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vh_ddc.h"

/* Knobs: numbers of a monitor, each a file. */

static void released(struct monitor *m)
{
	wake_up_all(&m->released);
}

static void fallen_asleep(struct monitor *m)
{
	m->awake_at = now_ms() + m->asleep_ms;
}

/* Somebody used the monitor's own buttons, or the host what is not forgotten. */
static void kept(struct monitor *m)
{
	memcpy(m->saved, m->value, sizeof(m->saved));
	m->unsaved = false;
	m->bounce_to = 0;
}

static void signal_changed(struct monitor *m)
{
	m->no_signal_since = 0;
	if (has_signal(m, m->value[INPUT]))
		m->bounce_to = 0;
}

struct knob {
	const char *name;
	size_t at;
	const char *format;
	/* With the lock, after a write. */
	void (*written)(struct monitor *m);
};

#define KNOB(member, ...) { #member, offsetof(struct monitor, member), "%u\n", ##__VA_ARGS__ }
#define FEATURE(name, code) { name, offsetof(struct monitor, value[code]), "0x%02x\n", kept }

static const struct knob knobs[] = {
	FEATURE("input", INPUT),
	FEATURE("power", POWER),
	FEATURE("brightness", BRIGHTNESS),
	FEATURE("contrast", CONTRAST),
	KNOB(nak),
	KNOB(eio),
	KNOB(edid_eio),
	KNOB(null),
	KNOB(bad_checksum),
	{ "short", offsetof(struct monitor, short_reply), "%u\n" },
	KNOB(ignore_set),
	KNOB(ignore_first_write),
	KNOB(ready_ms),
	KNOB(asleep_ms, fallen_asleep),
	{ "only_active", offsetof(struct monitor, only_active), "0x%02x\n" },
	KNOB(lg),
	KNOB(needs_save, kept),
	KNOB(wrong_readback),
	{ "no_signal", offsetof(struct monitor, no_signal), "0x%x\n", signal_changed },
	KNOB(bounce_ms, signal_changed),
	KNOB(bounce_after_ms),
	KNOB(bounces),
	KNOB(slow_ms),
	KNOB(hang, released),
};

struct handle {
	struct monitor *m;
	const struct knob *knob;
};

static u32 *number(const struct handle *handle)
{
	return (u32 *)((u8 *)handle->m + handle->knob->at);
}

static ssize_t knob_read(struct file *file, char __user *to, size_t count, loff_t *at)
{
	const struct handle *handle = file->private_data;
	char text[16];
	int length;

	mutex_lock(&handle->m->lock);
	settle(handle->m);
	length = scnprintf(text, sizeof(text), handle->knob->format, *number(handle));
	mutex_unlock(&handle->m->lock);
	return simple_read_from_buffer(to, count, at, text, length);
}

static ssize_t knob_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	const struct handle *handle = file->private_data;
	struct monitor *m = handle->m;
	u32 value;
	int error = kstrtou32_from_user(from, count, 0, &value);

	if (error)
		return error;
	if (number(handle) == &m->value[INPUT] && !is_input(value))
		return -EINVAL;
	mutex_lock(&m->lock);
	settle(m);
	WRITE_ONCE(*number(handle), value);
	if (handle->knob->written)
		handle->knob->written(m);
	mutex_unlock(&m->lock);
	return count;
}

static const struct file_operations knob_file = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = knob_read,
	.write = knob_write,
	.llseek = default_llseek,
};

static ssize_t edid_read(struct file *file, char __user *to, size_t count, loff_t *at)
{
	struct monitor *m = file->private_data;
	ssize_t done;

	mutex_lock(&m->lock);
	done = simple_read_from_buffer(to, count, at, m->edid, 128);
	mutex_unlock(&m->lock);
	return done;
}

/* As it is, checksum and all: it may be meant to be wrong. */
static ssize_t edid_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	struct monitor *m = file->private_data;
	ssize_t done;

	mutex_lock(&m->lock);
	done = simple_write_to_buffer(m->edid, 128, at, from, count);
	mutex_unlock(&m->lock);
	return done ?: -ENOSPC;
}

static const struct file_operations edid_file = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = edid_read,
	.write = edid_write,
	.llseek = default_llseek,
};

static ssize_t log_read(struct file *file, char __user *to, size_t count, loff_t *at)
{
	struct monitor *m = file->private_data;
	ssize_t done;
	char lost[24];
	loff_t after;

	mutex_lock(&m->lock);
	done = simple_read_from_buffer(to, count, at, m->log, m->log_length);
	if (!done && m->log_lost && *at >= m->log_length) {
		after = *at - m->log_length;
		done = simple_read_from_buffer(to, count, &after, lost,
					       scnprintf(lost, sizeof(lost), "lost %u\n", m->log_lost));
		*at = m->log_length + after;
	}
	mutex_unlock(&m->lock);
	return done;
}

static ssize_t log_write(struct file *file, const char __user *from, size_t count, loff_t *at)
{
	struct monitor *m = file->private_data;

	mutex_lock(&m->lock);
	m->log_length = 0;
	m->log_lost = 0;
	mutex_unlock(&m->lock);
	return count;
}

static const struct file_operations log_file = {
	.owner = THIS_MODULE,
	.open = simple_open,
	.read = log_read,
	.write = log_write,
	.llseek = default_llseek,
};

/* -1 while the display device has no driver. */
static int bus_get(void *data, u64 *number)
{
	const struct monitor *m = data;

	*number = READ_ONCE(m->added) ? m->adapter.nr : -1;
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(bus_file, bus_get, NULL, "%lld\n");

int add_files(struct monitor *m, struct dentry *top, const char *name)
{
	size_t i;

	m->handles = kcalloc(ARRAY_SIZE(knobs), sizeof(*m->handles), GFP_KERNEL);
	if (!m->handles)
		return -ENOMEM;
	m->folder = debugfs_create_dir(name, top);
	debugfs_create_file_unsafe("bus", 0400, m->folder, m, &bus_file);
	debugfs_create_file("log", 0600, m->folder, m, &log_file);
	debugfs_create_file("edid", 0600, m->folder, m, &edid_file);
	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		m->handles[i] = (struct handle){ m, &knobs[i] };
		debugfs_create_file(knobs[i].name, 0600, m->folder, &m->handles[i], &knob_file);
	}
	return 0;
}
