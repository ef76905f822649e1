#!/usr/bin/env bash
systemctl stop "libvirt-nosleep@$1"
