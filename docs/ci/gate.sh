#!/bin/sh
# Release gate in a plain shell: sh gate.sh POLICY ORIGINAL CANDIDATE DATA
# Leaves gate.json, gate.xml (JUnit) and result.json; its exit code is the gate's.
set -u

onnxtrim gate "$1" --original "$2" --candidate "$3" --data "$4" \
    -o result.json --junit gate.xml --markdown gate.md --json > gate.json
code=$?

case $code in
    0) echo "release: every required rule is shown to hold" ;;
    1) echo "stop: a limit is shown to be violated, or was not measured" ;;
    2) echo "mend the policy or the inputs; nothing was measured" ;;
    3) echo "not enough evidence: more samples, or a quieter machine" ;;
    4) echo "the measurement itself broke; run it again" ;;
esac
exit $code
