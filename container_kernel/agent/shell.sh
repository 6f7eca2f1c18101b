# A notebook kernel for images that have nothing but a POSIX shell.
#
# The host starts `sh -i` with a FIFO as its standard input, reads this file in, and then sends one
# line per cell: `__ck_id=N; __ck_run 'TEXT'; __ck_over`, the text escaped for printf %b. The prompt
# of the shell itself, which it writes when it is ready for the next line, tells the host that the
# cell is over and how it ended; also after an interrupt or an error that a shell cannot catch.
#
# Between cells the host looks things up in the same shell: `__ck_answer N FUNCTION ARGUMENT...`.
# The answer goes line by line into the FIFO `__ck_events`, apart from what cells print.
unset HISTFILE ENV
PS2=
# A child that ends or stops interrupts busybox's reading of the next line, which it takes for the
# end of its input. With this it goes on, and says `Use "exit" to leave shell.`, up to 50 times.
set -o ignoreeof 2>/dev/null

__ck_run() {
    # A syntax error would end the line, and with it what a script may rely on: look first.
    printf %b "$1" | sh -n || return 2
    eval "$(printf %b "$1")" </dev/null 6>&- 7>&-
}

# What `exec >FILE` or `PS1=` has done ends with its cell: the host would never see the prompt. No
# cell has these descriptors, nor what it starts.
exec 6>&1 7>&2
__ck_over() {
    set -- $?
    exec 1>&6 2>&7
    PS1=$__ck_prompt
    return "$1"
}

__ck_answer() {
    __ck_number=$1
    shift
    { "$@"; printf '\n%s.\n' "$__ck_number"; } >"$__ck_events" 2>/dev/null </dev/null
    return 0
}

# Files whose names begin with $1, folders with a slash behind.
__ck_files() {
    __ck_word=$(printf %b. "$1")
    __ck_word=${__ck_word%.}
    case $__ck_word in
        '~/'*) __ck_word=$HOME/${__ck_word#??} ;;
    esac
    for __ck_path in "$__ck_word"*; do
        if [ -d "$__ck_path" ]; then
            printf '%s/\n' "$__ck_path"
        elif [ -e "$__ck_path" ]; then
            printf '%s\n' "$__ck_path"
        fi
    done
}

# Commands whose names begin with $1.
__ck_commands() {
    (
        IFS=:
        set -f
        set -- "$1" $PATH
        set +f
        __ck_word=$1
        shift
        for __ck_folder; do
            for __ck_path in "$__ck_folder/$__ck_word"*; do
                [ -f "$__ck_path" ] && [ -x "$__ck_path" ] && printf '%s\n' "${__ck_path##*/}"
            done
        done
    )
    # Only some shells have these; what they say besides names is left out by the host.
    compgen -A function "$1" || typeset -F
}

__ck_variables() {
    set
}

# What $1 is, as a command or as a variable.
__ck_about() {
    command -V "$1"
    case $1 in
        *[!A-Za-z0-9_]* | [0-9]*) ;;
        *) eval "[ -n \"\${$1+x}\" ] && printf '%s=%s\n' $1 \"\$$1\"" ;;
    esac
}

__ck_syntax() {
    printf %b "$1" | sh -n 2>&1
}
