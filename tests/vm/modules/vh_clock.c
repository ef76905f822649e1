/*
 * CPUs whose clock can be set, on an emulated host that has none: governors and the switch for boost are as on a real
 * one. What they ask for is remembered, and changes nothing.
 */
#include <linux/cpufreq.h>
#include <linux/module.h>
#include <linux/moduleparam.h>

static int refuses = -1;
module_param(refuses, int, 0644);
MODULE_PARM_DESC(refuses, "a CPU that takes no governor and no limit, or -1");

static struct cpufreq_frequency_table clocks[] = {
	{ .frequency = 1000000 },
	{ .frequency = 2000000 },
	{ .frequency = 3000000, .flags = CPUFREQ_BOOST_FREQ },
	{ .frequency = CPUFREQ_TABLE_END },
};

static DEFINE_PER_CPU(unsigned int, clock_now) = 1000000;

static int clock_init(struct cpufreq_policy *policy)
{
	policy->freq_table = clocks;
	policy->cpuinfo.transition_latency = 10000;
	return 0;
}

static int clock_verify(struct cpufreq_policy_data *policy)
{
	if (policy->cpu == READ_ONCE(refuses))
		return -EIO;
	return cpufreq_generic_frequency_table_verify(policy);
}

static int clock_set(struct cpufreq_policy *policy, unsigned int index)
{
	per_cpu(clock_now, policy->cpu) = clocks[index].frequency;
	return 0;
}

static unsigned int clock_get(unsigned int cpu)
{
	return per_cpu(clock_now, cpu);
}

static int clock_set_boost(struct cpufreq_policy *policy, int state)
{
	return 0;
}

static struct cpufreq_driver clock_driver = {
	.name = "vh_clock",
	/* Else the kernel drops the TSC at the first change. */
	.flags = CPUFREQ_CONST_LOOPS,
	.init = clock_init,
	.verify = clock_verify,
	.target_index = clock_set,
	.get = clock_get,
	.set_boost = clock_set_boost,
	.boost_enabled = true,
};

static int __init vh_clock_init(void)
{
	return cpufreq_register_driver(&clock_driver);
}
module_init(vh_clock_init);

static void __exit vh_clock_exit(void)
{
	cpufreq_unregister_driver(&clock_driver);
}
module_exit(vh_clock_exit);

MODULE_DESCRIPTION("test CPUs with a clock");
MODULE_LICENSE("Dual MIT/GPL");
