#!/usr/bin/env bash
# Chromium for the tests of the report, where apt-get may install it. Does nothing where there
# is one, or no apt-get, or no root: those tests are skipped then, and say so.
set -euo pipefail
for name in chromium chromium-browser google-chrome google-chrome-stable; do
  if command -v "$name" >/dev/null; then exit 0; fi
done
if ! command -v apt-get >/dev/null || [ "$(id -u)" -ne 0 ]; then
  echo "no Chromium, and none can be installed here: the tests of the report in a browser skip"
  exit 0
fi
if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends chromium; } >/dev/null; then
  echo "Chromium could not be installed: the tests of the report in a browser skip"
fi
