#!/usr/bin/env bash
systemctl start "libvirt-nosleep@$1"
