#!/usr/bin/env bash
# shellcheck shell=sh
# orchestrator-shell-client: this line tells a run of this file, under any name, from a sourcing of it.
#
# Runs one masking job through the orchestrator's spool and ends as the job ends: `orchestrator.bash --help`.
# POSIX sh on purpose: the same under bash 5, dash, busybox sh, mksh, zsh and ksh93. The contract is docs/protocol.md.
#
# Sourced, it offers functions that take the same options and return the same statuses:
#     orchestrator_run    [OPTION...] JOB [key=value ...]   submit and wait
#     orchestrator_submit [OPTION...] JOB [key=value ...]   prints NAME, also sets ORCHESTRATOR_NAME; 0, 64 or 69
#     orchestrator_wait   [OPTION...] NAME                  one waiter for each NAME; a NAME that never was looks green
#     orchestrator_cancel [-s SPOOL] NAME                   whoever waits for it gets 66 (CANCELLED); 0, 64 or 69,
#                                                           and 1 where there is nothing (more) to cancel
# Each works in a process of its own, so no trap, option, directory or variable leaks into the caller's shell. The
# pid= of the job file is that process: a SIGQUIT that comes late can never hit the caller's shell, which may have
# no trap for it. orchestrator_submit gives no pid=, since nobody waits yet; give pid=... as a pair to have one.

_orc_help() {
    cat <<'END'
usage: orchestrator.bash [OPTION...] [--] JOB [key=value ...]

Submits the masking job JOB to the orchestrator, waits for its end and exits as it ended.
Pairs are copied to the job file: retries=1 on_warning=finish param.who=me ...

  -s, --spool SPOOL        the spool directory; otherwise $ORCHESTRATOR_SPOOL
  -e, --environment NAME   the engine's environment that the job is in
  -p, --priority NUMBER    0 to 100, higher first
  -t, --timeout TIME       from the job's start to TIMEOUT: seconds, 30m, 2h
      --engine NAME        run on this engine only, or on one of engine1,engine2
      --wait SECONDS       give up waiting after that long; the job goes on
      --keep               on HUP, INT or TERM let the job go on instead of cancelling it
  -h, --help               this text

exit status
  0              FINISHED
  1 to 63        FAILED: the job's own exit status where it has one in that range, otherwise 1
  64             wrong usage
  65             REJECTED
  66             CANCELLED by someone else
  69             nothing serves the spool (no heartbeat), or it cannot be written
  75             gave up waiting (--wait SECONDS); the job goes on
  124            TIMEOUT
  129, 130, 143  this caller got HUP, INT or TERM; the job was cancelled, unless --keep
  131            released by SIGQUIT, and the light said no more

Where the spool has no heartbeat for 3 minutes, a job that was not taken yet is withdrawn after
$ORCHESTRATOR_HEARTBEAT_GRACE seconds (20) more: 69. A job that was taken may be running, so the
wait goes on with a warning: the orchestrator ends it when it is started again. --wait bounds that.
END
}

_orc_say() { # one line, whatever is in it
    case $* in
    *[[:cntrl:]]*) printf 'orchestrator.bash: %s\n' "$(printf '%s' "$*" | tr '[:cntrl:]' '?')" >&2 ;;
    *) printf 'orchestrator.bash: %s\n' "$*" >&2 ;;
    esac
}

_orc_wrong() {
    _orc_say "$1 (see orchestrator.bash --help)"
    return 64
}

_orc_main() { # ACTION ARGUMENT...: always in a process of its own, whose pid is $self
    [ -z "${ZSH_VERSION:-}" ] || emulate sh 2>/dev/null
    # In posix mode bash lets a signal end `read -t` at once; the subshell asks first, as refusing would end a shell.
    # shellcheck disable=SC3040 # bash only
    if [ -n "${BASH_VERSION:-}" ] && (set -o posix) 2>/dev/null; then set -o posix; fi
    set +e +u +f +C # whatever the sourcing shell had on
    unset IFS
    LC_ALL=C # names are cut and judged by bytes
    export LC_ALL
    trap 'exit 129' HUP # nothing to undo yet
    trap 'exit 130' INT
    trap 'exit 143' TERM
    action=$1 spool=${ORCHESTRATOR_SPOOL:-} keep='' limit='' lines='' given=' job '
    shift
    [ "$action" != run ] || given=' job pid '
    while [ $# -gt 0 ]; do
        case $1 in
        -h | --help) _orc_help && return 0 ;;
        --keep) keep=yes && shift && continue ;;
        --) shift && break ;;
        --*=*) option=${1%%=*} value=${1#*=} && shift ;;
        -[sept] | --spool | --environment | --priority | --timeout | --engine | --wait)
            [ $# -ge 2 ] || { _orc_wrong "$1 needs a value" || return; }
            option=$1 value=$2 && shift 2
            ;;
        -*) option=$1 value=none && shift ;;
        *) break ;;
        esac
        case $option in
        -s | --spool) spool=$value ;;
        -e | --environment) _orc_key environment "$value" || return ;;
        -p | --priority) _orc_key priority "$value" || return ;;
        -t | --timeout) _orc_key timeout "$value" || return ;;
        --engine) _orc_key engine "$value" || return ;;
        --wait) limit=${value:-none} ;;
        *) _orc_wrong "unknown option $option" || return ;;
        esac
        [ -n "$value" ] || { _orc_wrong "$option needs a value" || return; }
    done
    case $limit in # a leading 0 would be octal to some shells
    0 | '') ;;
    0* | *[!0-9]* | ??????????*) _orc_wrong "--wait needs a whole number of seconds, not $limit" || return ;;
    esac
    case $action in
    run | submit)
        job=${1:-}
        [ -n "$job" ] || { _orc_wrong "no JOB given" || return; }
        case $job in *[[:cntrl:]]*) _orc_wrong "a control character in JOB $job" || return ;; esac
        shift
        for pair in "$@"; do
            case $pair in
            *=*) _orc_key "${pair%%=*}" "${pair#*=}" || return ;;
            *) _orc_wrong "not key=value: $pair (options come before JOB)" || return ;;
            esac
        done
        ;;
    *)
        name=${1:-} light=${1:-}.trafficlight
        case $# in 1) ;; *) _orc_wrong "orchestrator_$action takes one NAME" || return ;; esac
        case $name in
        *[!A-Za-z0-9._@+-]* | [!A-Za-z0-9_]* | '') _orc_wrong "not a NAME: $name" || return ;;
        esac
        [ ${#name} -le 200 ] || { _orc_wrong "NAME is longer than 200 bytes" || return; }
        ;;
    esac
    _orc_enter_spool || return
    if [ "$action" = cancel ]; then
        _orc_cancel
        return
    fi

    [ "$action" = wait ] || _orc_stem
    # shellcheck disable=SC3045 # asked, not assumed: a shell that does not know fractions of -t says so
    no_fractions=$({ read -r -t 0.01 ignored </dev/null; } 2>&1)

    # No $(...) from here on where bash or ksh93 come by: a trapped signal in the midst of it upsets them.
    # The traps set flags only, seen to by the wait: a signal must not cut a submission in two. An INT that is sent
    # to this process alone is dropped by bash while a child of it runs (some ms); the one of a terminal never is.
    signal='' signal_exit='' quit=''
    trap 'signal=HUP signal_exit=129' HUP
    trap 'signal=INT signal_exit=130' INT
    trap 'signal=TERM signal_exit=143' TERM
    trap 'quit=yes' QUIT
    if [ "$action" != wait ]; then
        _orc_submit || return "${signal_exit:-69}"
    fi
    if [ "$action" = submit ]; then
        [ -z "$signal" ] || { _orc_interrupted && return "$signal_exit"; }
        printf '%s\n' "$name"
    else
        _orc_wait
    fi
}

_orc_key() { # KEY VALUE: one more line for the job file
    case $1 in
    '' | *[!A-Za-z0-9_.-]*) _orc_wrong "not a key: '$1'" || return ;;
    esac
    case $2 in *[[:cntrl:]]*) _orc_wrong "a control character in the value of $1" || return ;; esac
    case $given in *" $1 "*) _orc_wrong "$1 is given twice, or not yours to give" || return ;; esac
    given="$given$1 "
    lines="$lines$1=$2
"
}

_orc_enter_spool() { # from here on the spool is the working directory
    [ -n "$spool" ] || { _orc_wrong "no spool: give -s SPOOL or set ORCHESTRATOR_SPOOL" || return; }
    case $spool in /*) ;; *) spool=$PWD/$spool ;; esac
    if [ ! -d "$spool" ]; then
        _orc_say "no spool directory at $spool: start the orchestrator, or correct -s or ORCHESTRATOR_SPOOL"
        return 69
    fi
    if [ ! -w "$spool" ] || ! cd -P "$spool" >/dev/null 2>&1; then
        _orc_say "cannot write to the spool $spool: ask its owner for write permission"
        return 69
    fi
}

_orc_stem() { # the start of NAME, and the second that makes it unique
    stem=$(printf '%s' "$job" | tr -c 'A-Za-z0-9._+-' _ | cut -c 1-160)
    case $stem in [A-Za-z0-9_]*) ;; *) stem=_$stem ;; esac
    born=$(date +%s)
}

_orc_submit() { # the light first, then the job file: at no moment can anyone see green too early
    count=1
    set -C
    while name=$stem@$born-$self-$count light=$name.trafficlight && ! { true >"$light"; } 2>/dev/null; do
        if [ ! -e "$light" ] || [ "$count" -ge 99 ]; then
            _orc_say "cannot make a light in $spool: see whether its disk is full"
            return 69
        fi
        count=$((count + 1))
    done
    set +C
    # Process 1 is one of a container, where no signal from outside would find it.
    [ "$action" != run ] || [ "${self:-1}" -le 1 ] || lines="${lines}pid=$self
"
    printf 'job=%s\n%s' "$job" "$lines" 2>/dev/null >".$name.tmp" && mv -f ".$name.tmp" "$name.job" && return
    rm -f ".$name.tmp" "$light"
    _orc_say "cannot write the job file $spool/$name.job: see whether its disk is full"
    return 69
}

_orc_wait() {
    grace=${ORCHESTRATOR_HEARTBEAT_GRACE:-20} every=${ORCHESTRATOR_HEARTBEAT_EVERY:-30}
    case $grace in *[!0-9]* | ?????*) grace=20 ;; esac
    case $every in *[!0-9]* | ?????*) every=30 ;; esac
    pause=10 longest=4000 stale='' lost='' quit_at=''
    [ -z "$limit" ] || longest=1000 # it is to be kept to the second
    _orc_choose_pause
    _orc_choose_clock
    _orc_now
    began=$now beat_due=$((now + 2)) # most jobs are taken, many have ended by then, and a spool just started is served
    while :; do
        # The job file before the light: where the caller made no light, the orchestrator makes it before it takes.
        if [ -e "$name.job" ]; then
            :
        elif [ -s "$light" ]; then
            _orc_red
            return
        elif [ ! -e "$light" ]; then
            _orc_gone
            return
        fi
        if [ -n "$signal" ]; then
            _orc_interrupted
            return "$signal_exit"
        fi
        _orc_now
        if [ -n "$quit" ]; then # the light is rewritten before SIGQUIT is sent, but it may show late on NFS
            [ -n "$quit_at" ] || quit_at=$now pause=10
            if [ $((now - quit_at)) -gt 2 ]; then
                _orc_say "got QUIT, but $spool/$light says nothing: job $name may go on; ask the orchestrator"
                return 131
            fi
        fi
        # Whole seconds are compared, so "greater" waits up to one second longer, and never shorter.
        if [ "$limit" = 0 ] || { [ -n "$limit" ] && [ $((now - began)) -gt "$limit" ]; }; then
            _orc_say "gave up after $limit s, the job goes on: wait for $spool/$light, or orchestrator_wait $name"
            return 75
        fi
        [ "$now" -lt "$beat_due" ] || _orc_heartbeat || return
        _orc_pause
    done
}

_orc_now() { # sets $now without a fork where it can; only differences of it are used
    # Since boot, where the kernel tells that: a wall clock that jumps must end no wait. Once so, always so.
    if [ "$clock" = boot ]; then
        IFS=. read -r uptime ignored </proc/uptime && now=$uptime
        return 0
    fi
    now=''
    # shellcheck disable=SC3028 # left out where the shell has neither
    [ "$how" != reading ] || now=${EPOCHSECONDS:-${SECONDS:-}}
    now=${now%%[.,]*} # ksh93 counts fractions
    [ -n "$now" ] || now=$(date +%s)
}

_orc_choose_clock() {
    now='' clock=boot
    { _orc_now; } 2>/dev/null
    case $now in '' | *[!0-9]*) clock=wall ;; esac
}

_orc_choose_pause() {
    how=sleeping
    if [ -z "$no_fractions" ] && mkfifo -m 600 ".$name.$self.fifo" 2>/dev/null; then
        exec 9<> ".$name.$self.fifo" # nothing ever comes: reading it with a timeout sleeps without a fork
        rm -f ".$name.$self.fifo"
        how=reading
    elif command -v inotifywait >/dev/null 2>&1; then
        how=watching
    elif ! sleep 0.01 2>/dev/null; then
        pause=1000 longest=1000
    fi
}

_orc_pause() { # short at first, then a twentieth of the time waited so far, up to $longest ms; a signal ends it
    fraction=$((1000 + pause % 1000))
    seconds=$((pause / 1000)).${fraction#1}
    pause=$((pause + pause / 20 + 1))
    [ "$pause" -le "$longest" ] || pause=$longest
    case $how in
    reading)
        # shellcheck disable=SC2034,SC3045 # only where _orc_choose_pause found that the shell has it
        read -r -t "$seconds" ignored <&9 2>/dev/null
        return
        ;;
    watching) # bounded, as the light may change before it is watched, or unseen on NFS
        inotifywait -qq -t 1 -e attrib,close_write,delete_self,move_self "./$light" >/dev/null 2>&1 &
        ;;
    sleeping) sleep "${seconds%.000}" >/dev/null 2>&1 & ;;
    esac
    waited=143
    if [ -z "$signal" ]; then
        wait $! # a trap acts at once here, but only after the end of a command in the foreground
        waited=$?
    fi
    if [ -n "$signal$quit" ] && [ "$waited" -gt 128 ]; then
        kill $! 2>/dev/null
    elif [ "$how" = watching ] && [ "$waited" -ne 0 ] && [ "$waited" -ne 2 ] && [ -e "$light" ]; then
        how=sleeping # no watches left
    fi
}

_orc_red() { # the first line is cut with patterns only, and never run
    IFS= read -r first <"$light"
    cat "$light" >&2
    rm -f "$light"
    known=${first%% reason=*} # people's words come after that, and may contain exit= too
    case $known in
    TIMEOUT | TIMEOUT\ *) return 124 ;;
    CANCELLED | CANCELLED\ *) return 66 ;;
    REJECTED | REJECTED\ *) return 65 ;;
    FAILED\ *\ exit=*) own_exit=${known##* exit=} && own_exit=${own_exit%% *} ;;
    *) own_exit=1 ;;
    esac
    case $own_exit in
    [1-9] | [1-5][0-9] | 6[0-3]) return "$own_exit" ;;
    *) return 1 ;;
    esac
}

_orc_in_place() { # does the spool's path still lead to where this process stands?
    # shellcheck disable=SC3013 # -ef: all six shells have it; one that had not would not give green
    [ -x . ] && [ . -ef "$spool" ]
}

_orc_gone() { # green, but only in the very spool that the light stood in
    if ! _orc_in_place; then
        _orc_say "the spool $spool was removed, moved or unmounted: ask the orchestrator how job $name ended"
        return 69
    fi
    [ -n "$quit" ] || return 0
    _orc_say "got QUIT, and $spool/$light is gone: ask the orchestrator how job $name ended"
    return 131
}

_orc_interrupted() {
    moved="the spool $spool was removed, moved or unmounted"
    if [ -n "$keep" ]; then
        ! _orc_in_place || moved="its light is $spool/$light"
        _orc_say "got $signal, job $name goes on (--keep): $moved"
    elif _orc_withdraw; then
        rm -f "$light"
        _orc_say "got $signal: job $name was withdrawn from $spool before it was taken"
    elif ! _orc_in_place; then # nobody would read a NAME.cancel here
        _orc_say "got $signal, but $moved: job $name was not cancelled and may go on; ask the orchestrator"
    elif _orc_ask_to_cancel 2>/dev/null; then
        rm -f "$light"
        _orc_say "got $signal: job $name is being cancelled through $spool/$name.cancel"
    else
        _orc_say "got $signal, but cannot write $spool/$name.cancel: job $name was not cancelled and may go on"
    fi
}

_orc_withdraw() { # fails where the orchestrator was quicker: a rename has one winner
    [ -e "$name.job" ] && mv -f "$name.job" ".$name.withdrawn" 2>/dev/null && rm -f ".$name.withdrawn"
}

_orc_ask_to_cancel() {
    : >".$name.cancel.tmp" && mv -f ".$name.cancel.tmp" "$name.cancel"
}

_orc_cancel() { # for whoever waits, the light must turn red: removing it would be green
    if _orc_withdraw; then
        printf 'CANCELLED job=%s reason="withdrawn before it was taken"\n' "${name%%@*}" >".$name.light.tmp"
        mv -f ".$name.light.tmp" "$light"
    elif [ ! -e "$light" ] || [ -s "$light" ]; then
        _orc_say "nothing to cancel: job $name has ended, or never was in $spool"
        return 1
    elif ! _orc_ask_to_cancel 2>/dev/null; then
        _orc_say "cannot write $spool/$name.cancel: job $name was not cancelled"
        return 69
    fi
}

_orc_heartbeat() { # forks, so it is asked rarely; it fails with 69 when the job was withdrawn, or the spool is gone
    if ! _orc_in_place; then
        if [ -n "$lost" ]; then
            became="ask the orchestrator how job $name ended"
            ! _orc_withdraw || { rm -f "$light" && became="job $name was withdrawn before it was taken"; }
            _orc_say "the spool $spool was removed, moved or unmounted: $became"
            return 69
        fi
        lost=yes beat_due=$((now + every)) # it may be mounted anew just now: looked at once more
        [ "$every" -le 5 ] || beat_due=$((now + 5))
        return 0
    fi
    lost=''
    if [ -n "$(find .heartbeat -mmin -3 2>/dev/null)" ]; then
        [ -z "$stale" ] || _orc_say "the spool $spool is served again: waiting for job $name"
        stale='' beat_due=$((now + every))
        return 0
    fi
    [ -z "$signal$quit" ] || return 0 # it may have cut the question short
    if [ -z "$stale" ]; then
        stale=$now warn_due=$now
    fi
    if [ ! -e "$name.job" ]; then # taken, and maybe running: giving up would not be true, nor would green
        if [ "$now" -ge "$warn_due" ]; then
            _orc_say "nothing serves $spool (no heartbeat for 3 minutes): job $name was taken; start the orchestrator"
            warn_due=$((now + 600))
        fi
        beat_due=$((now + every))
        return 0
    fi
    if [ $((now - stale)) -ge "$grace" ] && _orc_withdraw; then
        rm -f "$light"
        _orc_say "nothing serves $spool: job $name was withdrawn; start the orchestrator and run it again"
        return 69
    fi
    if [ "$now" = "$warn_due" ]; then
        _orc_say "nothing serves $spool (no heartbeat for 3 minutes): start it within $grace s, or job $name is withdrawn"
        warn_due=$((now + 600))
    fi
    beat_due=$((now + 1))
}

_orc_apart() { # ACTION ARGUMENT...: called in a subshell
    # shellcheck disable=SC3045 # refused elsewhere without harm
    ulimit -S -t "$(ulimit -S -t 2>/dev/null)" 2>/dev/null # makes ksh93 fork: its subshells are the same process otherwise
    # $$ is the caller's shell even here; the child of this process knows better.
    # shellcheck disable=SC2016 # expanded by the child
    self=$(exec sh -c 'echo "$PPID"')
    _orc_main "$@"
}

orchestrator_run() { (_orc_apart run "$@"); }
orchestrator_wait() { (_orc_apart wait "$@"); }
orchestrator_cancel() { (_orc_apart cancel "$@"); }
orchestrator_submit() {
    ORCHESTRATOR_NAME=$(_orc_apart submit "$@") && printf '%s\n' "$ORCHESTRATOR_NAME"
}

# Run or sourced? A run that took itself for sourced would do nothing and exit 0: a false green.
if
    if [ -n "${BASH_VERSION:-}" ]; then
        ! (return 0) 2>/dev/null # refused in a run; $BASH_SOURCE differs from $0 in a run found through PATH too
    elif [ -n "${ZSH_VERSION:-}" ]; then
        case ${ZSH_EVAL_CONTEXT:-} in *:file*) false ;; esac
    elif [ "${0##*/}" != orchestrator.bash ]; then # the others cannot say: is $0 this file under another name?
        grep -q '^# orchestrator-shell-client: ' "$0" "$(command -v "$0")" 2>/dev/null
    fi
then
    self=$$
    _orc_main run "$@"
    exit
fi
