#!/usr/bin/env bash
# Builds dist/ipclocker, the one file that is copied to hosts. Equal sources give equal bytes: nothing of the builder's
# umask, clock, folders or environment gets in. PYTHON names an interpreter that has shiv and the pinned distributions.
set -euo pipefail
cd "$(dirname "$0")"
python=${PYTHON:-.venv/bin/python}
umask 022
export SOURCE_DATE_EPOCH=315532800 PYTHONDONTWRITEBYTECODE=1 # the former: 1980, shiv stops below it
unset PYTHONPATH PYTHONHOME

mkdir -p dist
work=$(mktemp -d dist/build.XXXXXX)
trap 'rm -rf "$work"' EXIT

"$python" -m ipclocker.zipapp.build stage "$work/site"
"$python" -m shiv --site-packages "$work/site" --reproducible --entry-point ipclocker.__main__:main \
    --python '/usr/bin/python3 -ISXutf8' --output-file "$work/ipclocker"
"$python" -m ipclocker.zipapp.build finish "$work/ipclocker"
mv "$work/ipclocker" dist/ipclocker # at once: a run or a build at the same time sees a whole file
