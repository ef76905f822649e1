#!/bin/bash
echo 0 > /sys/bus/pci/devices/0000:06:00.0/sriov_numvfs
