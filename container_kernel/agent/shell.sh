# A notebook kernel for images that have nothing but a POSIX shell.
#
# The host starts `sh -i` with a FIFO as its standard input, reads this file in, and then sends one
# line per cell: `__ck_id=N; __ck_run 'TEXT'`, the text escaped for printf %b. The shell's own
# prompt, which it writes when it is ready for the next line, tells the host that the cell is over
# and how it ended; also after an interrupt or an error that a shell cannot catch.
unset HISTFILE ENV
PS2=

__ck_run() {
    # A syntax error would end the line, and with it what a script may rely on: look first.
    printf %b "$1" | sh -n || return 2
    eval "$(printf %b "$1")" </dev/null
}
