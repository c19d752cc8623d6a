# shellcheck shell=bash disable=SC2034,SC2154 # names shared with tests/bench
# Sourced by tests/bench: what was measured, what follows from it, and how it is printed.
#
# A *sample* is one line of cost.c. A *figure* is a file of samples. A *ratio* compares the least of two figures, because what disturbs
# a run only ever adds to it. A *fact* is one number. Nothing here runs a command that is measured.

figures=$work/figures
ratios=$work/ratios.tsv
facts=$work/facts.tsv
mkdir -p "$figures"
: >"$ratios"
: >"$facts"

# The median and the least CPU of a figure, in microseconds.
median() { cut -d' ' -f1 "$figures/$1" | sort -n | awk '{ value[NR] = $1 } END { if (!NR) exit 1; print (value[int((NR + 1) / 2)] + value[int(NR / 2) + 1]) / 2 }'; }
least() { cut -d' ' -f1 "$figures/$1" | sort -n | head -n 1; }

# Makes a figure of others: round by round the sum of them, each times a factor.  combine NEW FIGURE FACTOR [FIGURE FACTOR]...
combine() {
    local new=$1 terms=()
    shift
    while [ $# -gt 0 ]; do
        terms+=("$(awk -v factor="$2" '{ printf "%.1f\n", $1 * factor }' "$figures/$1")")
        shift 2
    done
    local column files=()
    for column in "${!terms[@]}"; do
        printf '%s\n' "${terms[$column]}" >"$work/term-$column"
        files+=("$work/term-$column")
    done
    paste -d' ' "${files[@]}" | awk -v terms="${#files[@]}" 'NF == terms { sum = 0; for (i = 1; i <= NF; i++) sum += $i; print sum }' >"$figures/$new"
}

# "11.9 (12.3)": least and median, in milliseconds.
milliseconds() {
    awk -v median="$(median "$1")" -v least="$(least "$1")" '
        function shown(value) { return sprintf(value >= 100 ? "%.0f" : value >= 10 ? "%.1f" : "%.2f", value) }
        BEGIN { printf "%s (%s)", shown(least / 1000), shown(median / 1000) }'
}

# Records how one figure compares with another.  ratio WHAT PEER'S-NAME PEER'S-FIGURE LIMPET'S-FIGURE [GOAL]
# GOAL is the most that the ratio may be, as 2 or 1/40; without one the line is there to be seen.
ratio() {
    local what=$1 peer=$2 theirs=$3 ours=$4 goal=${5:-}
    local comparison verdict='' shown=''
    comparison=$(awk -v ours="$(least "$ours")" -v theirs="$(least "$theirs")" -v goal="$goal" 'BEGIN {
        if (theirs <= 0) { print "- -"; exit }
        ratio = ours / theirs
        if (ratio >= 0.1) printf "%.2f", ratio; else printf "1/%.0f", 1 / ratio
        split(goal, part, "/")
        most = part[2] ? part[1] / part[2] : part[1]
        print "", goal == "" ? "-" : ratio <= most ? "reached" : "NOT_reached"
    }')
    verdict=${comparison#* }
    if [ "$verdict" = - ]; then verdict=''; fi
    if [ -n "$goal" ]; then shown="≤ $goal"; fi
    printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$what" "$peer" "$(milliseconds "$theirs")" "$(milliseconds "$ours")" \
        "${comparison% *}" "$shown" "${verdict/_/ }" >>"$ratios"
    show "$ratios"
}

# Records one number.  fact WHAT VALUE UNIT [GOAL]
fact() {
    local what=$1 value=$2 unit=$3 goal=${4:-} verdict='' shown=''
    [ -n "$value" ] || wrong "nothing was measured for '$what'"
    if [ -n "$goal" ]; then
        shown="≤ $goal $unit"
        verdict=$(awk -v value="$value" -v goal="$goal" 'BEGIN { print value <= goal ? "reached" : "NOT reached" }')
    fi
    printf '%s\t%s\t%s\t%s\n' "$what" "$value $unit" "$shown" "$verdict" >>"$facts"
    show "$facts"
}

# The newest line, as soon as it is known.
show() {
    tail -n 1 "$1" | awk -F '\t' 'NF == 7 { printf "   %s: %s %s ms, limpet %s ms, ratio %s  %s  %s\n", $1, $2, $3, $4, $5, $6, $7; next }
        { printf "   %s: %s  %s  %s\n", $1, $2, $3, $4 }'
}

as_markdown() { awk -F '\t' '{ gsub(/[|]/, "\\|"); printf "|"; for (i = 1; i <= NF; i++) printf " %s |", $i; print "" }'; }

# Everything, or with `goals` what there is a goal for, as Markdown.
tables() {
    local chosen=cat
    if [ "${1:-}" = goals ]; then chosen='grep reached'; fi
    if $chosen "$ratios" >"$work/chosen" && [ -s "$work/chosen" ]; then
        printf '%s\n%s\n' '| what | compared with | its CPU, ms | limpet, ms | ratio | goal | |' '|---|---|---|---|---|---|---|'
        as_markdown <"$work/chosen"
        echo
    fi
    if $chosen "$facts" >"$work/chosen" && [ -s "$work/chosen" ]; then
        printf '%s\n%s\n' '| what | measured | goal | |' '|---|---|---|---|'
        as_markdown <"$work/chosen"
        echo
    fi
    printf '%s\n' "CPU is user and system time of all processes involved: least (median) of $rounds rounds; first applies: $first_rounds." "$computer"
}
