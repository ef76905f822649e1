#!/usr/bin/env bash
pkill -f ^looking-glass-client
rm -f /dev/shm/looking-glass
