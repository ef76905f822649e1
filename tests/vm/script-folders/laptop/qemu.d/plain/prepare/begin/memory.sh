#!/usr/bin/env bash
sysctl -q vm.stat_interval=120
echo never >/sys/kernel/mm/transparent_hugepage/enabled
echo never >/sys/kernel/mm/transparent_hugepage/defrag
