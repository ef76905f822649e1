#!/usr/bin/env bash
sysctl -q vm.stat_interval=1
echo always >/sys/kernel/mm/transparent_hugepage/enabled
echo always >/sys/kernel/mm/transparent_hugepage/defrag
