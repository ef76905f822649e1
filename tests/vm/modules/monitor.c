/* The test monitor's own life: DDC/CI, its EDID, its faults, and the log of what was said. */
#include <linux/delay.h>
#include <linux/kernel.h>

#include "vh_ddc.h"

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

/* A pause after which a monitor with ignore_first_write forgets that it was spoken to. */
#define PAUSE_MS 1000
/* Time for the save that a monitor with needs_save waits for. */
#define SAVE_MS 1000

/* What has happened by itself since somebody last looked. */
void settle(struct monitor *m)
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
void log_message(struct monitor *m, s64 start, const struct i2c_msg *msg, int result)
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

bool is_input(u32 value)
{
	return value >= FIRST_INPUT && value <= LAST_INPUT;
}

bool has_signal(const struct monitor *m, u32 input)
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

/* Whether a message to the monitor has an answer that is read later. */
bool is_question(const struct i2c_msg *msg)
{
	return msg->len > 2 && (msg->buf[2] == GET || msg->buf[2] == CAPABILITIES);
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

int ddc(struct monitor *m, struct i2c_msg *msg)
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

int edid(struct monitor *m, struct i2c_msg *msg)
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

void make_edid(struct monitor *m, unsigned int index)
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
void make_spd(struct monitor *m)
{
	static const u8 start[] = { 0x23, 0x11, 0x0c, 0x02, 0x85, 0x21, 0x00, 0x08 };

	memcpy(m->edid, start, sizeof(start));
}
