#!/bin/sh
# Cells of the datapath with weights of $1 bits, codes of $2 and accumulators of $3, odd weights where $4 is 1, beside those with $5 to $8.
# From the environment: LANES, MUL (bits of a multiplier), POWERS (1: powers of two), TERMS (products of a sum). See make area.
set -eu

# cells MODULE NAME=VALUE...
cells() {
	top=$1
	parameters=
	shift
	for parameter; do
		parameters="$parameters -chparam ${parameter%=*} ${parameter#*=}"
	done
	yosys -q -p "read_verilog rtl/cqat_mac.v rtl/cqat_requantize.v rtl/cqat_datapath.v; hierarchy -top $top $parameters;
		synth -flatten -top $top; tee -q -o build/stat.json stat -json"
	awk '/"num_cells"/ { gsub(/[^0-9]/, ""); cells = $0 } END { print cells }' build/stat.json
}

# column W_BITS A_BITS ACC_BITS ODD: multiply-accumulate, requantize, all of it with an identity shortcut.
column() {
	mac="LANES=$LANES W_BITS=$1 A_BITS=$2 ACC_BITS=$3 ODD=$4"
	factors="R_BITS=$(($2 + 1)) MUL_BITS=$MUL POWERS=$POWERS HI=$(((1 << $2) - 1)) Q_BITS=$2"
	cells cqat_mac $mac
	cells cqat_requantize $factors ACC_BITS="$3"
	cells cqat_datapath $mac $factors S_BITS="$2"
}

narrow=$(column "$1" "$2" "$3" "$4")
wide=$(column "$5" "$6" "$7" "$8")
echo "Cells of Yosys's generic library: a count, not area measured. $LANES lanes; accumulators for sums of $TERMS products."
printf '%-24s %8s %8s %6s\n' '' "W$1A$2" "W$5A$6" ratio
printf '%s\n' $narrow $wide | awk '
	{ cells[NR] = $1 }
	END {
		split("multiply, accumulate;requantize, clip;datapath", name, ";")
		for (k = 1; k <= 3; k++) printf "%-24s %8d %8d %6.2f\n", name[k], cells[k], cells[k + 3], cells[k + 3] / cells[k]
	}'
