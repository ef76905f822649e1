/*
 * The test GPU's driver: poses as the one that a host has for its card. It makes real DRM nodes that can be held open
 * and mapped, speaks in the kernel's log as amdgpu does, and fails, waits or hangs when it is told to.
 *
 * Everything is seen and set in /sys/module/vh_gpu/parameters/. ../README.md lists them.
 */
#include <linux/delay.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mm.h>
#include <linux/pci.h>
#include <linux/wait.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <drm/drm_ioctl.h>
#include <drm/drm_managed.h>
#include <drm/drm_print.h>

#define VRAM_BAR 0
/* Far from what a firmware shows on the screen. */
#define SIGN_OF_LIFE_AT 0xf00000
#define ALIVE 0x76686770

static char *ids = "";
module_param(ids, charp, 0444);
MODULE_PARM_DESC(ids, "other cards to drive: 1234:5678[,1234:9abc]...");

/* Knobs */

static unsigned int probe_delay_ms;
module_param(probe_delay_ms, uint, 0644);
static unsigned int probe_error;
module_param(probe_error, uint, 0644);
static bool probe_noise;
module_param(probe_noise, bool, 0644);
static unsigned int remove_delay_ms;
module_param(remove_delay_ms, uint, 0644);

static DECLARE_WAIT_QUEUE_HEAD(released);

static int set_hang(const char *text, const struct kernel_param *param)
{
	int error = param_set_bool(text, param);

	wake_up_all(&released);
	return error;
}

static const struct kernel_param_ops hang_ops = { .set = set_hang, .get = param_get_bool };
static bool probe_hang;
module_param_cb(probe_hang, &hang_ops, &probe_hang, 0644);
static bool remove_hang;
module_param_cb(remove_hang, &hang_ops, &remove_hang, 0644);
static bool remove_oops;
module_param(remove_oops, bool, 0644);

/* Counters */

static unsigned int probes;
module_param(probes, uint, 0444);
static unsigned int removes;
module_param(removes, uint, 0444);
static unsigned int resets_at_probe;
module_param(resets_at_probe, uint, 0444);

/* Nodes */

struct gpu {
	struct drm_device drm;
	/* What a mapping of a node shows. */
	struct page *page;
};

static vm_fault_t node_fault(struct vm_fault *fault)
{
	struct gpu *gpu = fault->vma->vm_private_data;
	int section;

	if (!drm_dev_enter(&gpu->drm, &section))
		return VM_FAULT_SIGBUS;
	get_page(gpu->page);
	fault->page = gpu->page;
	drm_dev_exit(section);
	return 0;
}

static const struct vm_operations_struct node_mapping = { .fault = node_fault };

static int node_mmap(struct file *file, struct vm_area_struct *vma)
{
	const struct drm_file *opened = file->private_data;

	vma->vm_private_data = container_of(opened->minor->dev, struct gpu, drm);
	vma->vm_ops = &node_mapping;
	return 0;
}

static const struct file_operations node = {
	.owner = THIS_MODULE,
	.open = drm_open,
	.release = drm_release,
	.unlocked_ioctl = drm_ioctl,
	.compat_ioctl = drm_compat_ioctl,
	.poll = drm_poll,
	.read = drm_read,
	.llseek = noop_llseek,
	.mmap = node_mmap,
	.fop_flags = FOP_UNSIGNED_OFFSET,
};

static const struct drm_driver drm_driver = {
	.driver_features = DRIVER_RENDER,
	.fops = &node,
	.name = "vhgpu",
	.desc = "GPU for the tests of vfio-hook",
	.date = "20250101",
	.major = 1,
};

static void free_page_of(struct drm_device *drm, void *page)
{
	__free_page(page);
}

/* Driver */

/*
 * As the firmware of a card that was in use is found running: only a reset by the driver itself ends it. The sign is
 * kept in video memory, which outlives everything but the power.
 */
static int find_sign_of_life(struct pci_dev *pci)
{
	u32 __iomem *sign;
	int error = 0;

	if (pci_resource_len(pci, VRAM_BAR) < SIGN_OF_LIFE_AT + sizeof(*sign))
		return -ENODEV;
	sign = pci_iomap_range(pci, VRAM_BAR, SIGN_OF_LIFE_AT, sizeof(*sign));
	if (!sign)
		return -ENOMEM;
	if (readl(sign) == ALIVE) {
		dev_info(&pci->dev, "GPU mode1 reset\n");
		resets_at_probe++;
	}
	writel(ALIVE, sign);
	/* Registers are where the kernel believes, unless a reset went wrong. */
	if (readl(sign) != ALIVE)
		error = -ENODEV;
	pci_iounmap(pci, sign);
	return error;
}

static int init(struct pci_dev *pci, struct gpu *gpu)
{
	u32 id;
	int error = pcim_enable_device(pci);

	if (error)
		return error;
	pci_read_config_dword(pci, PCI_VENDOR_ID, &id);
	if (PCI_POSSIBLE_ERROR(id))
		return -ENODEV;
	/* As a driver that waits for firmware: no signal ends it. */
	wait_event(released, !READ_ONCE(probe_hang));
	msleep(probe_delay_ms);
	if (probe_error)
		return -(int)probe_error;
	error = find_sign_of_life(pci);
	if (error)
		return error;
	if (probe_noise)
		drm_err(&gpu->drm, "ring gfx_0.0.0 test failed (%d)\n", -ETIMEDOUT);
	return drm_dev_register(&gpu->drm, 0);
}

static int probe(struct pci_dev *pci, const struct pci_device_id *id)
{
	struct gpu *gpu = devm_drm_dev_alloc(&pci->dev, &drm_driver, struct gpu, drm);
	int error;

	if (IS_ERR(gpu))
		return PTR_ERR(gpu);
	gpu->page = alloc_page(GFP_KERNEL | __GFP_ZERO);
	if (!gpu->page)
		return -ENOMEM;
	error = drmm_add_action_or_reset(&gpu->drm, free_page_of, gpu->page);
	if (error)
		return error;
	pci_set_drvdata(pci, gpu);

	probes++;
	dev_info(&pci->dev, "initializing kernel modesetting (VHGPU %04x:%04x 0x%02X)\n", pci->vendor, pci->device,
		 pci->revision);
	error = init(pci, gpu);
	if (error)
		dev_err(&pci->dev, "Fatal error during GPU init\n");
	return error;
}

static void remove(struct pci_dev *pci)
{
	struct gpu *gpu = pci_get_drvdata(pci);

	dev_info(&pci->dev, "finishing device.\n");
	drm_dev_unplug(&gpu->drm);
	wait_event(released, !READ_ONCE(remove_hang));
	msleep(remove_delay_ms);
	/* Ends the process that unbinds, with the device's lock taken. */
	if (READ_ONCE(remove_oops))
		WRITE_ONCE(*(int *)NULL, 0);
	removes++;
}

static const struct pci_device_id cards[] = {
	{ PCI_DEVICE(PCI_VENDOR_ID_ATI, 0x5046) },
	{}
};

static struct pci_driver driver = {
	.name = "vhgpu",
	.id_table = cards,
	.probe = probe,
	.remove = remove,
};

/* As vfio-pci reads the ids it is given. */
static int add_ids(void)
{
	unsigned int vendor, device;
	char *left = ids, *id;
	int error = 0;

	while (!error && (id = strsep(&left, ","))) {
		if (!*id)
			continue;
		if (sscanf(id, "%x:%x", &vendor, &device) != 2)
			return -EINVAL;
		error = pci_add_dynid(&driver, vendor, device, PCI_ANY_ID, PCI_ANY_ID, 0, 0, 0);
	}
	return error;
}

static int __init start(void)
{
	int error = pci_register_driver(&driver);

	if (error)
		return error;
	error = add_ids();
	if (error)
		pci_unregister_driver(&driver);
	return error;
}

static void __exit end(void)
{
	pci_unregister_driver(&driver);
}

module_init(start);
module_exit(end);
MODULE_DESCRIPTION("A GPU's driver for the tests of vfio-hook");
MODULE_LICENSE("Dual MIT/GPL");
