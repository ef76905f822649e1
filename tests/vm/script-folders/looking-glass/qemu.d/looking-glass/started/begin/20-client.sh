#!/usr/bin/env bash
LG_WIDTH=800 setsid runuser -u player -- /usr/local/bin/looking-glass-client >/dev/null 2>&1 </dev/null &
