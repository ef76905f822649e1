/*
 * The test monitor: I2C adapters of a display device, each with an EDID at 0x50 and a DDC/CI
 * monitor at 0x37, and beside them one that poses as an SMBus, which nobody must touch.
 *
 * Everything is seen and set in /sys/kernel/debug/vh_ddc/: 0, 1, ... for the monitors, smbus.
 * ../README.md lists the files.
 */
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include "vh_ddc.h"

#define MOST_MONITORS 8

static unsigned int monitors = 1;
module_param(monitors, uint, 0444);
MODULE_PARM_DESC(monitors, "number of monitors, 1 to 8");

static char *parent = "";
module_param(parent, charp, 0444);
MODULE_PARM_DESC(parent, "PCI address of the display device; else the first one with a driver");

static bool connector;
module_param(connector, bool, 0444);
MODULE_PARM_DESC(connector, "monitor 0 is at the display device's first connector");

static struct monitor *all;
static unsigned int all_count;
static struct dentry *top;
static struct pci_dev *card;
static struct pci_dev *board;

/*
 * What is said on the card's buses at once. Drivers of real cards do not all survive that: a
 * transfer that begins while another bus has one, or while another bus owes the answer to a question, is counted.
 */
static DEFINE_SPINLOCK(card_state);
static unsigned int under_way;
static struct monitor *asked;
static s64 asked_at;
static atomic_t overlaps;

/* A question that nobody reads the answer of is forgotten after this. */
#define ANSWERED_WITHIN_MS 60

static void transfer_begins(struct monitor *m)
{
	bool owed;

	if (m->smbus)
		return;
	spin_lock(&card_state);
	owed = asked && asked != m && now_ms() - asked_at < ANSWERED_WITHIN_MS;
	if (under_way++ || owed)
		atomic_inc(&overlaps);
	spin_unlock(&card_state);
}

static void transfer_ends(struct monitor *m, const struct i2c_msg *last, int result)
{
	if (m->smbus)
		return;
	spin_lock(&card_state);
	under_way--;
	if (!result && last->addr == DDC_ADDRESS && !(last->flags & I2C_M_RD) && is_question(last)) {
		asked = m;
		asked_at = now_ms();
	} else if (asked == m) {
		asked = NULL;
	}
	spin_unlock(&card_state);
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
	transfer_begins(m);
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
	transfer_ends(m, &msgs[count - 1], result);
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
	return m->log ? 0 : -ENOMEM;
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
	debugfs_create_atomic_t("overlaps", 0600, top, &overlaps);
	for (i = 0; i < all_count; i++) {
		scnprintf(name, sizeof(name), "%u", i);
		error = prepare(&all[i], i) ?: add(&all[i]) ?:
			add_files(&all[i], top, all[i].smbus ? "smbus" : name);
		if (error)
			return error;
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
