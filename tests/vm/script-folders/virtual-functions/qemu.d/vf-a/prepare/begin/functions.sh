#!/bin/bash
# As guides have it.
echo 0 > /sys/bus/pci/devices/0000:06:00.0/sriov_drivers_autoprobe
echo 4 > /sys/bus/pci/devices/0000:06:00.0/sriov_numvfs
