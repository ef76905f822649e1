/* The test monitor: what it is, and what its parts know of each other. */
#ifndef VH_DDC_H
#define VH_DDC_H

#include <linux/i2c.h>
#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/types.h>
#include <linux/wait.h>

#define EDID_ADDRESS 0x50
#define DDC_ADDRESS 0x37

#define BRIGHTNESS 0x10
#define CONTRAST 0x12
#define INPUT 0x60
#define POWER 0xd6
#define VERSION 0xdf
#define LG_INPUT 0xf4

#define FIRST_INPUT 0x0f
#define LAST_INPUT 0x12

#define LOG_BYTES (256 * 1024)
#define EDID_BYTES 256
#define MOST_REPLY 40

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

static inline s64 now_ms(void)
{
	return ktime_to_ms(ktime_get());
}

/* monitor.c */
void settle(struct monitor *m);
void log_message(struct monitor *m, s64 start, const struct i2c_msg *msg, int result);
bool is_input(u32 value);
bool has_signal(const struct monitor *m, u32 input);
bool is_question(const struct i2c_msg *msg);
int ddc(struct monitor *m, struct i2c_msg *msg);
int edid(struct monitor *m, struct i2c_msg *msg);
void make_edid(struct monitor *m, unsigned int index);
void make_spd(struct monitor *m);

/* files.c */
int add_files(struct monitor *m, struct dentry *top, const char *name);

#endif
