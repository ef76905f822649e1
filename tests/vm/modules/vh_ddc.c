/*
 * The test monitor: I2C adapters of a display device, each with an EDID at 0x50 and a DDC/CI
 * monitor at 0x37, and beside them one that poses as an SMBus, which nobody must touch.
 *
 * Everything is seen and set in /sys/kernel/debug/vh_ddc/: 0, 1, ... for the monitors, smbus.
 * ../README.md lists the files.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/i2c.h>
#include <linux/ktime.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>

#define EDID_ADDRESS 0x50
#define DDC_ADDRESS 0x37

/* The bytes that stand for host and monitor in DDC/CI. */
#define TO_MONITOR 0x6e
#define FROM_HOST 0x51
#define FROM_LG_HOST 0x50
#define REPLY_SEED 0x50

#define GET 0x01
#define GET_REPLY 0x02
#define SET 0x03
#define SAVE 0x0c
#define CAPABILITIES 0xf3
#define CAPABILITIES_REPLY 0xe3

#define BRIGHTNESS 0x10
#define CONTRAST 0x12
#define INPUT 0x60
#define POWER 0xd6
#define VERSION 0xdf
#define LG_INPUT 0xf4

#define FIRST_INPUT 0x0f
#define LAST_INPUT 0x12

#define MOST_MONITORS 8
#define LOG_BYTES (256 * 1024)
#define EDID_BYTES 256
#define MOST_REPLY 40

/* A pause after which a monitor with ignore_first_write forgets that it was spoken to. */
#define PAUSE_MS 1000
/* Time for the save that a monitor with needs_save waits for. */
#define SAVE_MS 1000

static unsigned int monitors = 1;
module_param(monitors, uint, 0444);
MODULE_PARM_DESC(monitors, "number of monitors, 1 to 8");

static char *parent = "";
module_param(parent, charp, 0444);
MODULE_PARM_DESC(parent, "PCI address of the display device; else the first one with a driver");

static bool connector;
module_param(connector, bool, 0444);
MODULE_PARM_DESC(connector, "monitor 0 is at the display device's first connector");

/* Bits of the knobs that say at which address. */
#define AT_DDC 1
#define AT_EDID 2

struct handle;

/*
 * `lock` protects everything below it, but for what a transfer waits for before it takes the lock:
 * `hang` and `slow_ms`. The I2C core lets one transfer at a time come to an adapter.
 */
struct monitor {
	struct i2c_adapter adapter;
	bool added;
	bool smbus;
	/* The connector that names this bus, if one does. */
	struct device *connector;
	struct dentry *folder;
	struct handle *handles;
	wait_queue_head_t released;
	u32 hang;
	u32 slow_ms;

	struct mutex lock;

	u8 edid[EDID_BYTES];
	u8 edid_at;

	/* Now, and after a loss of what was not saved. */
	u32 value[256];
	u32 saved[256];
	bool unsaved;
	s64 lost_at;

	u8 reply[MOST_REPLY];
	size_t reply_length;
	s64 reply_ready;

	u32 nak;
	u32 eio;
	u32 edid_eio;
	u32 null;
	u32 bad_checksum;
	u32 short_reply;
	u32 ignore_set;
	u32 ready_ms;
	s64 awake_at;
	u32 asleep_ms;
	u32 ignore_first_write;
	bool listens;
	s64 last_message;
	u32 only_active;
	u32 lg;
	u32 needs_save;
	u32 wrong_readback;

	u32 no_signal;
	u32 bounce_ms;
	u32 bounce_after_ms;
	u32 bounces;
	s64 no_signal_since;
	s64 bounce_at;
	u32 bounce_to;

	char *log;
	size_t log_length;
	u32 log_lost;
};

static struct monitor *all;
static unsigned int all_count;
static struct dentry *top;
static struct pci_dev *card;
static struct pci_dev *board;

static s64 now_ms(void)
{
	return ktime_to_ms(ktime_get());
}

/* What has happened by itself since somebody last looked. */
static void settle(struct monitor *m)
{
	s64 now = now_ms();

	if (m->asleep_ms && now >= m->awake_at)
		m->asleep_ms = 0;
	if (m->unsaved && now >= m->lost_at) {
		memcpy(m->value, m->saved, sizeof(m->value));
		m->unsaved = false;
		m->bounce_to = 0;
	}
	if (m->bounce_to && now >= m->bounce_at) {
		m->value[INPUT] = m->bounce_to;
		m->saved[INPUT] = m->bounce_to;
		m->bounce_to = 0;
		m->bounces++;
	}
}

/* Log */

static void log_text(struct monitor *m, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	m->log_length += vscnprintf(m->log + m->log_length, LOG_BYTES - m->log_length, format, args);
	va_end(args);
}

/* One line for a message, or none: a line that has no room is counted. */
static void log_message(struct monitor *m, s64 start, const struct i2c_msg *msg, int result)
{
	size_t before = m->log_length;
	int i;

	if (LOG_BYTES - before < 80 + 3 * (size_t)msg->len) {
		m->log_lost++;
		return;
	}
	log_text(m, "%lld %lld %c %02x %s", start, ktime_to_us(ktime_get()),
		 msg->flags & I2C_M_RD ? 'r' : 'w', msg->addr,
		 result == 0 ? "ok" : result == -ENXIO ? "nak" : "eio");
	if (result == 0 || !(msg->flags & I2C_M_RD))
		for (i = 0; i < msg->len; i++)
			log_text(m, " %02x", msg->buf[i]);
	log_text(m, "\n");
}

/* DDC/CI */

static u8 checksum(u8 seed, const u8 *bytes, size_t count)
{
	while (count--)
		seed ^= *bytes++;
	return seed;
}

static bool is_input(u32 value)
{
	return value >= FIRST_INPUT && value <= LAST_INPUT;
}

static bool has_signal(const struct monitor *m, u32 input)
{
	return !(m->no_signal & BIT(input - FIRST_INPUT));
}

/* The highest value of a feature that can be read; 0 if there is none. */
static u32 highest(u8 code)
{
	switch (code) {
	case BRIGHTNESS:
	case CONTRAST:
		return 100;
	case INPUT:
		return LAST_INPUT;
	case POWER:
		return 5;
	case VERSION:
		return 0xffff;
	default:
		return 0;
	}
}

/* The payload of a reply, framed. */
static void answer(struct monitor *m, const u8 *payload, size_t count)
{
	m->reply[0] = TO_MONITOR;
	m->reply[1] = 0x80 | count;
	memcpy(m->reply + 2, payload, count);
	m->reply[2 + count] = checksum(REPLY_SEED, m->reply, 2 + count);
	m->reply_length = 3 + count;
	m->reply_ready = now_ms() + m->ready_ms;
}

static void answer_get(struct monitor *m, u8 code)
{
	u32 most = highest(code), value = m->value[code];
	u8 payload[] = { GET_REPLY, 0, code, 0, 0, 0, 0, 0 };

	if (code == INPUT)
		value ^= m->wrong_readback;
	if (most) {
		payload[4] = most >> 8;
		payload[5] = most;
		payload[6] = value >> 8;
		payload[7] = value;
	} else {
		payload[1] = 1; /* unsupported */
	}
	answer(m, payload, sizeof(payload));
}

static void answer_capabilities(struct monitor *m, size_t offset)
{
	static const char text[] = "(prot(monitor)type(lcd)model(VH)cmds(01 02 03 0C E3 F3)"
		"vcp(10 12 60(0F 10 11 12) D6(01 02 03 04 05) DF F4)mccs_ver(2.1))";
	u8 payload[3 + 32] = { CAPABILITIES_REPLY, offset >> 8, offset };
	size_t count = 0;

	if (offset < strlen(text)) {
		count = min_t(size_t, 32, strlen(text) - offset);
		memcpy(payload + 3, text + offset, count);
	}
	answer(m, payload, 3 + count);
}

static void set_input(struct monitor *m, u32 input)
{
	u32 from = m->value[INPUT];
	s64 now = now_ms();

	m->value[INPUT] = input;
	if (has_signal(m, input)) {
		m->bounce_to = 0;
		return;
	}
	if (!m->no_signal_since)
		m->no_signal_since = now;
	/* Set again while it is there without a signal, it still goes back to where it came from. */
	if (from != input)
		m->bounce_to = from;
	m->bounce_at = now + m->bounce_after_ms;
	/* By then the signal has come. */
	if (m->bounce_at - m->no_signal_since >= m->bounce_ms)
		m->bounce_to = 0;
}

static u32 lg_input(u32 value)
{
	switch (value) {
	case 0x90:
		return 0x11;
	case 0x91:
		return 0x12;
	case 0xd0:
		return 0x0f;
	case 0xd1:
		return 0x10;
	default:
		return 0;
	}
}

static void set(struct monitor *m, u8 source, u8 code, u32 value)
{
	if (m->ignore_set) {
		m->ignore_set--;
		return;
	}
	if (code == LG_INPUT && m->lg && source == FROM_LG_HOST) {
		value = lg_input(value);
		code = INPUT;
	} else if (code == INPUT && m->lg) {
		return;
	}
	if (code == INPUT) {
		if (!is_input(value))
			return;
		set_input(m, value);
	} else if (code == VERSION || !highest(code) || value > highest(code)) {
		return;
	} else {
		m->value[code] = value;
	}
	if (m->needs_save) {
		m->unsaved = true;
		m->lost_at = now_ms() + SAVE_MS;
	} else {
		memcpy(m->saved, m->value, sizeof(m->saved));
	}
}

/* A message to the monitor: what it cannot understand it takes, and answers with a null reply. */
static void hear(struct monitor *m, const u8 *bytes, size_t count)
{
	const u8 *payload = bytes + 2;
	size_t length;
	s64 now = now_ms();
	bool listens;

	m->reply_length = 0;
	if (count < 4 || !(bytes[1] & 0x80))
		return;
	length = bytes[1] & 0x7f;
	if (!length || count != length + 3)
		return;
	if (checksum(TO_MONITOR, bytes, count - 1) != bytes[count - 1])
		return;
	if (bytes[0] != FROM_HOST && !(m->lg && bytes[0] == FROM_LG_HOST))
		return;

	if (now - m->last_message >= PAUSE_MS)
		m->listens = false;
	m->last_message = now;
	listens = m->listens || !m->ignore_first_write;

	if (payload[0] == GET && length == 2) {
		m->listens |= payload[1] == INPUT;
		answer_get(m, payload[1]);
	} else if (payload[0] == SET && length == 4) {
		m->listens = true;
		if (listens)
			set(m, bytes[0], payload[1], payload[2] << 8 | payload[3]);
	} else if (payload[0] == SAVE && length == 1) {
		memcpy(m->saved, m->value, sizeof(m->saved));
		m->unsaved = false;
	} else if (payload[0] == CAPABILITIES && length == 3) {
		answer_capabilities(m, payload[1] << 8 | payload[2]);
	}
}

static bool take_one(u32 *left)
{
	if (!*left)
		return false;
	--*left;
	return true;
}

/* A read: the reply, once; a null reply if there is none. Nobody drives the bus after its end. */
static void speak(struct monitor *m, u8 *bytes, size_t count)
{
	static const u8 nothing[] = { TO_MONITOR, 0x80, REPLY_SEED ^ TO_MONITOR ^ 0x80 };
	const u8 *from = nothing;
	size_t length = sizeof(nothing);

	if (m->reply_length && now_ms() >= m->reply_ready && !take_one(&m->null)) {
		from = m->reply;
		length = m->reply_length;
		if (take_one(&m->bad_checksum))
			m->reply[length - 1] ^= 0x55;
		if (take_one(&m->short_reply))
			length = 4;
	}
	memset(bytes, 0xff, count);
	memcpy(bytes, from, min(count, length));
	m->reply_length = 0;
}

static int ddc(struct monitor *m, struct i2c_msg *msg)
{
	if (m->nak & AT_DDC || m->asleep_ms)
		return -ENXIO;
	if (m->only_active && m->value[INPUT] != m->only_active)
		return -ENXIO;
	if (take_one(&m->eio))
		return -EIO;
	if (msg->flags & I2C_M_RD)
		speak(m, msg->buf, msg->len);
	else
		hear(m, msg->buf, msg->len);
	return 0;
}

/* EDID */

static int edid(struct monitor *m, struct i2c_msg *msg)
{
	int i;

	if (m->nak & AT_EDID)
		return -ENXIO;
	if (take_one(&m->edid_eio))
		return -EIO;
	for (i = 0; i < msg->len; i++)
		if (msg->flags & I2C_M_RD)
			msg->buf[i] = m->edid[m->edid_at++];
		else
			m->edid_at = msg->buf[i];
	return 0;
}

static void make_edid(struct monitor *m, unsigned int index)
{
	static const u8 start[] = {
		0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 0, 0, 0, 0, 0, 0, 0, 0,
		/* made in 2024; EDID 1.4; digital, 52 cm x 29 cm, sRGB */
		1, 34, 1, 4, 0xa5, 52, 29, 0x78, 0x06,
		0xee, 0x91, 0xa3, 0x54, 0x4c, 0x99, 0x26, 0x0f, 0x50, 0x54, 0, 0, 0,
		1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
		/* 1920 x 1080, 60 Hz */
		0x02, 0x3a, 0x80, 0x18, 0x71, 0x38, 0x2d, 0x40, 0x58, 0x2c,
		0x45, 0x00, 0x09, 0x25, 0x21, 0x00, 0x00, 0x1e,
		0, 0, 0, 0xfd, 0, 50, 75, 30, 83, 17, 0, '\n', ' ', ' ', ' ', ' ', ' ', ' ',
	};
	u16 maker = ('V' - '@') << 10 | ('H' - '@') << 5 | (index + 1);
	u16 product = 0x4d00 + index;
	u32 serial = 1001 + index;
	u8 *e = m->edid, sum = 0;
	int i;

	memcpy(e, start, sizeof(start));
	e[8] = maker >> 8;
	e[9] = maker;
	e[10] = product;
	e[11] = product >> 8;
	e[12] = serial;
	e[13] = serial >> 8;
	e[93] = 0xfc;
	memcpy(e + 95, "VH Monitor 0\n", 13);
	e[106] += index;
	e[111] = 0xff;
	memcpy(e + 113, "VH1001\n      ", 13);
	e[118] += index;
	for (i = 0; i < 127; i++)
		sum += e[i];
	e[127] = -sum;
}

/* Where a display has its EDID, a memory module has its SPD; here are its first bytes. */
static void make_spd(struct monitor *m)
{
	static const u8 start[] = { 0x23, 0x11, 0x0c, 0x02, 0x85, 0x21, 0x00, 0x08 };

	memcpy(m->edid, start, sizeof(start));
}

/* Adapter */

static int transfer(struct i2c_adapter *adapter, struct i2c_msg *msgs, int count)
{
	struct monitor *m = container_of(adapter, struct monitor, adapter);
	s64 start = ktime_to_us(ktime_get());
	u32 slow = READ_ONCE(m->slow_ms);
	int i, result = 0, at = 0;

	for (i = 0; i < count; i++)
		at |= msgs[i].addr == DDC_ADDRESS ? AT_DDC : AT_EDID;
	/* As a driver whose hardware is stuck: no signal ends it. */
	wait_event(m->released, !(READ_ONCE(m->hang) & at));
	if (slow)
		msleep(slow);

	mutex_lock(&m->lock);
	for (i = 0; i < count && !result; i++) {
		settle(m);
		if (msgs[i].addr == DDC_ADDRESS)
			result = ddc(m, &msgs[i]);
		else if (msgs[i].addr == EDID_ADDRESS)
			result = edid(m, &msgs[i]);
		else
			result = -ENXIO;
		log_message(m, start, &msgs[i], result);
		start = ktime_to_us(ktime_get());
	}
	mutex_unlock(&m->lock);
	return result ?: count;
}

static u32 functionality(struct i2c_adapter *adapter)
{
	return I2C_FUNC_I2C | I2C_FUNC_SMBUS_EMUL;
}

static const struct i2c_algorithm algorithm = {
	.master_xfer = transfer,
	.functionality = functionality,
};

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

static void add_files(struct monitor *m, const char *name)
{
	size_t i;

	m->folder = debugfs_create_dir(name, top);
	debugfs_create_file_unsafe("bus", 0400, m->folder, m, &bus_file);
	debugfs_create_file("log", 0600, m->folder, m, &log_file);
	debugfs_create_file("edid", 0600, m->folder, m, &edid_file);
	for (i = 0; i < ARRAY_SIZE(knobs); i++) {
		m->handles[i] = (struct handle){ m, &knobs[i] };
		debugfs_create_file(knobs[i].name, 0600, m->folder, &m->handles[i], &knob_file);
	}
}

/* Parents */

static struct pci_dev *display(void)
{
	struct pci_dev *device = NULL, *first = NULL;

	while ((device = pci_get_device(PCI_ANY_ID, PCI_ANY_ID, device))) {
		if (device->class >> 16 != PCI_BASE_CLASS_DISPLAY)
			continue;
		if (*parent ? !strcmp(parent, pci_name(device)) : device->dev.driver != NULL) {
			pci_dev_put(first);
			return device;
		}
		if (!*parent && !first)
			first = pci_dev_get(device);
	}
	return first;
}

static struct pci_dev *chipset(void)
{
	return pci_get_class(PCI_CLASS_SERIAL_SMBUS << 8, NULL) ?:
		pci_get_class(PCI_CLASS_BRIDGE_ISA << 8, NULL);
}

static int is_card(struct device *device, void *unused)
{
	return !strncmp(dev_name(device), "card", 4);
}

/* As drivers do that know which bus belongs to a connector: card0-Virtual-1/ddc. */
static void connect(struct monitor *m)
{
	struct device *drm = device_find_child(&card->dev, NULL, is_card), *found;

	if (!drm)
		return;
	/* Connectors are children of the card, and named after it. */
	found = device_find_child(drm, NULL, is_card);
	put_device(drm);
	if (found && sysfs_create_link(&found->kobj, &m->adapter.dev.kobj, "ddc")) {
		put_device(found);
		found = NULL;
	}
	m->connector = found;
}

static void disconnect(struct monitor *m)
{
	if (!m->connector)
		return;
	sysfs_remove_link(&m->connector->kobj, "ddc");
	put_device(m->connector);
	m->connector = NULL;
}

static int add(struct monitor *m)
{
	struct pci_dev *above = m->smbus ? board : card;
	int error;

	m->adapter.owner = THIS_MODULE;
	m->adapter.algo = &algorithm;
	m->adapter.dev.parent = above ? &above->dev : NULL;
	if (m->smbus)
		strscpy(m->adapter.name, "SMBus vh_ddc adapter", sizeof(m->adapter.name));
	else
		scnprintf(m->adapter.name, sizeof(m->adapter.name), "vh_ddc %u", (unsigned int)(m - all));
	error = i2c_add_adapter(&m->adapter);
	WRITE_ONCE(m->added, !error);
	if (!error && connector && m == all)
		connect(m);
	return error;
}

/* Waits until nobody has the bus open. */
static void remove(struct monitor *m)
{
	if (!m->added)
		return;
	disconnect(m);
	WRITE_ONCE(m->added, false);
	i2c_del_adapter(&m->adapter);
}

/* The buses of a display come and go with its driver. */
static int driver_changed(struct notifier_block *block, unsigned long event, void *device)
{
	unsigned int i;

	if (!card || device != &card->dev)
		return NOTIFY_DONE;
	for (i = 0; i < monitors; i++) {
		if (event == BUS_NOTIFY_UNBIND_DRIVER)
			remove(&all[i]);
		if (event == BUS_NOTIFY_BOUND_DRIVER && strcmp(card->dev.driver->name, "vfio-pci") &&
		    !all[i].added && add(&all[i]))
			pr_err("vh_ddc: monitor %u does not come back\n", i);
	}
	return NOTIFY_OK;
}

static struct notifier_block driver_watch = { .notifier_call = driver_changed };

static int prepare(struct monitor *m, unsigned int index)
{
	mutex_init(&m->lock);
	init_waitqueue_head(&m->released);
	m->smbus = index == monitors;
	if (m->smbus)
		make_spd(m);
	else
		make_edid(m, index);
	m->value[BRIGHTNESS] = 50;
	m->value[CONTRAST] = 75;
	m->value[INPUT] = FIRST_INPUT;
	m->value[POWER] = 1;
	m->value[VERSION] = 0x0201;
	memcpy(m->saved, m->value, sizeof(m->saved));
	m->bounce_after_ms = 300;
	m->log = vmalloc(LOG_BYTES);
	m->handles = kcalloc(ARRAY_SIZE(knobs), sizeof(*m->handles), GFP_KERNEL);
	return m->log && m->handles ? 0 : -ENOMEM;
}

static void remove_all(void)
{
	unsigned int i;

	debugfs_remove_recursive(top);
	for (i = 0; i < all_count; i++) {
		remove(&all[i]);
		vfree(all[i].log);
		kfree(all[i].handles);
	}
	kvfree(all);
	pci_dev_put(card);
	pci_dev_put(board);
}

static int add_all(void)
{
	char name[16];
	unsigned int i;
	int error;

	top = debugfs_create_dir("vh_ddc", NULL);
	for (i = 0; i < all_count; i++) {
		error = prepare(&all[i], i) ?: add(&all[i]);
		if (error)
			return error;
		scnprintf(name, sizeof(name), "%u", i);
		add_files(&all[i], all[i].smbus ? "smbus" : name);
	}
	return bus_register_notifier(&pci_bus_type, &driver_watch);
}

static int __init start(void)
{
	int error;

	if (monitors < 1 || monitors > MOST_MONITORS)
		return -EINVAL;
	all = kvcalloc(monitors + 1, sizeof(*all), GFP_KERNEL);
	if (!all)
		return -ENOMEM;
	all_count = monitors + 1;
	card = display();
	board = chipset();
	error = card ? add_all() : -ENODEV;
	if (error)
		remove_all();
	return error;
}

static void __exit end(void)
{
	bus_unregister_notifier(&pci_bus_type, &driver_watch);
	remove_all();
}

module_init(start);
module_exit(end);
MODULE_DESCRIPTION("Monitors for the tests of vfio-hook");
MODULE_LICENSE("Dual MIT/GPL");
