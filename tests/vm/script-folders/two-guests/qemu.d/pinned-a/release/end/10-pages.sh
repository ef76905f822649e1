#!/usr/bin/env bash
echo 0 >/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages
