#!/usr/bin/env bash
touch /dev/shm/looking-glass
chown player:kvm /dev/shm/looking-glass
chmod 0660 /dev/shm/looking-glass
