#!/usr/bin/env bash
for unit in user.slice system.slice init.scope; do
    systemctl set-property --runtime -- "$unit" AllowedCPUs=0-7
done
echo ff >/sys/devices/virtual/workqueue/cpumask
