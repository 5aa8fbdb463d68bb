#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Builds the page of the console: src/ and the libraries that package-lock.json pins
# become dist/, which is committed and embedded. It needs Node 20 and npm; building and
# running the console itself does not.
set -eu
export LC_ALL=C
cd "$(dirname "$0")"
npm ci --no-audit --no-fund --silent
rm -rf dist
mkdir -p dist
npx esbuild src/app.js --bundle --minify --format=esm --target=es2022 --legal-comments=none --outfile=dist/app.js --log-level=warning
npx esbuild src/app.css --bundle --minify --target=chrome120,firefox120,safari17 --outfile=dist/app.css --log-level=warning
cp src/index.html src/icon.svg dist/
{
  for lib in preact htm uplot; do
    printf '%s %s\n\n' "$lib" "$(node -p "require('./node_modules/$lib/package.json').version")"
    cat node_modules/$lib/LICENSE*
    printf '\n\n'
  done
} > dist/licenses.txt
# A test compares this with the sources, so that dist/ is never behind them.
cat src/* package-lock.json build.sh | sha256sum | cut -d ' ' -f 1 > dist/sources.sha256
ls -l dist
