/* What the host kernel lets a process in a container do: one line per fact, "name value".
 *
 * Every system call is tried in a child of its own with arguments that can do nothing: -1 six
 * times, a bad pointer and a bad descriptor at once. "errno N" is what it answered, "done" that it
 * succeeded, "gone" that it did not come back, which only one that is allowed can do. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define LAST_CALL 500
#define GONE -1000
#define NOWHERE "/no/such/folder"
#define MOST_TRIES 1000 /* of 50 microseconds and a bit */

static volatile long *answer;

/* Run in a child: what it answered, or GONE when it does not end or does not come back. */
static void report(const char *name, long (*attempt)(long), long argument)
{
    struct timespec moment = {0, 50000};
    *answer = GONE;
    pid_t pid = fork();
    if (pid == 0) {
        long self = syscall(SYS_getpid);
        long result = attempt(argument);
        long said = result < 0 ? -errno : 0;
        if (syscall(SYS_getpid) == self) /* else it is what fork(2) made, maybe calls later */
            *answer = said;
        syscall(SYS_exit_group, 0);
    }
    for (int tries = 0; waitpid(pid, NULL, WNOHANG) == 0; tries++) {
        if (tries == MOST_TRIES)
            kill(pid, SIGKILL);
        nanosleep(&moment, NULL);
    }
    if (*answer == GONE)
        printf("%s gone\n", name);
    else if (*answer == 0)
        printf("%s done\n", name);
    else
        printf("%s errno %ld\n", name, -*answer);
}

static long call(long number)
{
    long first = number == SYS_clone ? SIGCHLD : number == SYS_personality ? 0xffffffffL : -1;
    if (number == SYS_vfork) { /* its child must not return from here */
        pid_t made = vfork();
        if (made == 0)
            syscall(SYS_exit_group, 0);
        return made;
    }
    if (number == SYS_socket)
        return syscall(number, 1L, 1L, 0L);
    return syscall(number, first, -1L, -1L, -1L, -1L, -1L);
}

static void calls(void)
{
    char name[16];
    for (long number = 0; number <= LAST_CALL; number++) {
        if (number == SYS_sync) /* harmless, but the whole host would wait */
            continue;
        snprintf(name, sizeof name, "%ld", number);
        report(name, call, number);
    }
}

static long make_namespace(long flag) { return syscall(SYS_unshare, flag); }
static long clone_namespace(long flag) { return syscall(SYS_clone, flag | SIGCHLD, 0L, 0L, 0L, 0L); }
static long try_clone3(long size)
{
    unsigned long arguments[11] = {0};
    arguments[4] = SIGCHLD;
    return syscall(SYS_clone3, arguments, size);
}
/* Where these were allowed, they would answer ENOENT or EBADF and do nothing. */
static long try_setns(long unused) { return syscall(SYS_setns, -1L, 0L); }
static long try_mount(long unused) { return syscall(SYS_mount, "x", NOWHERE, "tmpfs", 0L, NULL); }
static long try_cgroup(long unused) { return syscall(SYS_mount, "x", NOWHERE, "cgroup", 0L, NULL); }
static long try_bind(long unused) { return syscall(SYS_mount, "/", NOWHERE, NULL, 4096L, NULL); }
static long try_pivot(long unused) { return syscall(SYS_pivot_root, NOWHERE, NOWHERE); }
static long try_socket(long family) { return syscall(SYS_socket, family, family % 256 == 38 ? 5L : 2L, 0L); }
static long try_personality(long value) { return syscall(SYS_personality, value); }
static long try_x32(long number) { return syscall(0x40000000L + number); }
static long try_block_device(long unused)
{
    struct stat found; /* where the call is answered without effect, nothing is there */
    if (mknod("/tmp/probe-block", S_IFBLK | 0600, makedev(8, 0)) != 0)
        return -1;
    return lstat("/tmp/probe-block", &found);
}

static int terminal(void)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY), number = 0, unlocked = 0;
    char name[32];
    setsid();
    ioctl(master, TIOCSPTLCK, &unlocked);
    ioctl(master, TIOCGPTN, &number);
    snprintf(name, sizeof name, "/dev/pts/%d", number);
    return open(name, O_RDWR);
}
static long try_push(long high) { return syscall(SYS_ioctl, terminal(), high | TIOCSTI, "x"); }
static long try_console(long high) { return syscall(SYS_ioctl, terminal(), high | TIOCLINUX, "\7"); }
static long try_size(long unused)
{
    struct winsize size;
    return syscall(SYS_ioctl, terminal(), TIOCGWINSZ, &size);
}

static void attempts(void)
{
    static const struct { const char *name; long flag; } kinds[] = {
        {"user", CLONE_NEWUSER}, {"mnt", CLONE_NEWNS}, {"pid", CLONE_NEWPID}, {"net", CLONE_NEWNET},
        {"ipc", CLONE_NEWIPC}, {"uts", CLONE_NEWUTS}, {"cgroup", CLONE_NEWCGROUP}, {"time", 0x80}};
    char name[64];
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        snprintf(name, sizeof name, "unshare-%s", kinds[kind].name);
        report(name, make_namespace, kinds[kind].flag);
        if (kinds[kind].flag != 0x80) { /* the low byte is the signal */
            snprintf(name, sizeof name, "clone-%s", kinds[kind].name);
            report(name, clone_namespace, kinds[kind].flag);
        }
    }
    for (long family = 0; family < 64; family++) {
        snprintf(name, sizeof name, "socket-%ld", family);
        report(name, try_socket, family);
    }
    report("high-socket-38", try_socket, 1L << 32 | 38);
    report("high-socket-40", try_socket, 1L << 32 | 40);
    report("clone3", try_clone3, 88);
    report("setns", try_setns, 0);
    report("mount", try_mount, 0);
    report("mount-cgroup", try_cgroup, 0);
    report("mount-bind", try_bind, 0);
    report("pivot_root", try_pivot, 0);
    report("personality-linux", try_personality, 0);
    report("personality-executable-data", try_personality, 0x0400000);
    report("personality-fixed-addresses", try_personality, 0x0040000);
    report("x32", try_x32, 39);
    report("mknod-block", try_block_device, 0);
    report("ioctl-TIOCSTI", try_push, 0);
    report("ioctl-high-TIOCSTI", try_push, 1L << 32);
    report("ioctl-TIOCLINUX", try_console, 0);
    report("ioctl-TIOCGWINSZ", try_size, 0);
}

static void descriptors(void)
{
    DIR *folder = opendir("/proc/self/fd");
    for (struct dirent *entry; (entry = readdir(folder));)
        if (entry->d_name[0] != '.' && atoi(entry->d_name) != dirfd(folder))
            printf("%s open\n", entry->d_name);
    closedir(folder);
}

/* Whatever can be seen of other processes for so long, each once: whoever starts a process in here
 * is one of them for a moment, with all that they hold. */
#define MOST_SEEN 1024
#define MOST_HELD 256
static char *seen[MOST_SEEN];
static int held[MOST_HELD], count_held;

static int is_new(const char *line)
{
    int at = 0;
    for (; at < MOST_SEEN && seen[at]; at++)
        if (strcmp(seen[at], line) == 0)
            return 0;
    if (at < MOST_SEEN)
        seen[at] = strdup(line);
    return 1;
}

static void look_at(const char *path, const char *what)
{
    char target[512], line[1024];
    struct stat other, own;
    ssize_t size = readlink(path, target, sizeof target - 1);
    if (size < 0)
        return;
    target[size] = 0;
    const char *whose = "";
    if (strcmp(what, "root") == 0 && stat(path, &other) == 0 && stat("/", &own) == 0 &&
        (other.st_dev != own.st_dev || other.st_ino != own.st_ino))
        whose = "foreign ";
    snprintf(line, sizeof line, "%s %s%s", what, whose, target);
    if (is_new(line)) {
        puts(line);
        if (strcmp(what, "exe") == 0 && count_held < MOST_HELD)
            if ((held[count_held] = open(path, O_PATH | O_CLOEXEC)) >= 0)
                count_held++;
    }
}

static void look_at_process(const char *name)
{
    char path[512];
    static const char *links[] = {"exe", "cwd", "root"};
    for (int link = 0; link < 3; link++) {
        snprintf(path, sizeof path, "/proc/%s/%s", name, links[link]);
        look_at(path, links[link]);
    }
    snprintf(path, sizeof path, "/proc/%s/exe", name);
    int program = open(path, O_WRONLY | O_CLOEXEC);
    if (program >= 0) {
        printf("writable %s\n", path);
        close(program);
    }
    snprintf(path, sizeof path, "/proc/%s/fd", name);
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        snprintf(path, sizeof path, "/proc/%s/fd/%s", name, entry->d_name);
        look_at(path, "fd");
    }
    if (folder)
        closedir(folder);
}

static void watch(long milliseconds)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long end = now.tv_sec * 1000 + now.tv_nsec / 1000000 + milliseconds;
    puts("watching");
    while (now.tv_sec * 1000 + now.tv_nsec / 1000000 < end) {
        DIR *folder = opendir("/proc");
        for (struct dirent *entry; (entry = readdir(folder));)
            if (atoi(entry->d_name) && atoi(entry->d_name) != getpid())
                look_at_process(entry->d_name);
        closedir(folder);
        clock_gettime(CLOCK_MONOTONIC, &now);
    }
    for (int at = 0; at < count_held; at++) { /* nobody executes them any more */
        char path[64], target[512];
        snprintf(path, sizeof path, "/proc/self/fd/%d", held[at]);
        ssize_t size = readlink(path, target, sizeof target - 1);
        target[size < 0 ? 0 : size] = 0;
        int program = open(path, O_WRONLY | O_CLOEXEC);
        if (program >= 0)
            printf("writable %s\n", target);
    }
}

static void put(const char *path, const char *text)
{
    int file = open(path, O_WRONLY);
    if (file < 0 || write(file, text, strlen(text)) < 0)
        printf("%s errno %d\n", path, errno);
    close(file);
}

/* Root of a user namespace of its own with a view of cgroups of its own mounts v1 (CVE-2022-0492). */
static void cgroups(void)
{
    static const char *kinds[] = {"memory", "rdma", "pids", "devices", "misc"};
    char map[64], path[64];
    int uid = getuid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWCGROUP) != 0) {
        printf("unshare errno %d\n", errno);
        return;
    }
    puts("unshare done");
    snprintf(map, sizeof map, "0 %d 1", uid);
    put("/proc/self/uid_map", map);
    for (int kind = 0; kind < 5; kind++) {
        snprintf(path, sizeof path, "/tmp/probe-%s", kinds[kind]);
        mkdir(path, 0700);
        if (mount("c", path, "cgroup", 0, kinds[kind]) != 0) {
            printf("%s errno %d\n", kinds[kind], errno);
            continue;
        }
        printf("%s done\n", kinds[kind]);
        if (chdir(path) == 0 && open("release_agent", O_WRONLY) >= 0)
            printf("release_agent done\n");
    }
}

/* A tree as nobody makes one by hand: deeper than any path may be, names that are no text. */
static void strange(long depth)
{
    char name[256], *value = calloc(1, 65536);
    mkdir("deep", 0700);
    if (chdir("deep") != 0)
        return;
    for (long level = 0; level < depth; level++)
        if (mkdir("d", 0700) != 0 || chdir("d") != 0)
            printf("level %ld errno %d\n", level, errno);
    close(creat("bottom", 0600));
    if (chdir("/") != 0)
        return;
    memset(name, '\377', 255);
    name[255] = 0;
    int file = creat(name, 0600);
    printf("name errno %d\n", file < 0 ? errno : 0);
    printf("xattr errno %d\n", fsetxattr(file, "user.large", value, 65536, 0) != 0 ? errno : 0);
    printf("sparse errno %d\n", ftruncate(creat("sparse", 0600), 1L << 32) != 0 ? errno : 0);
}

int main(int count, char **words)
{
    int is_bare = count > 2 && strcmp(words[count - 1], "--bare") == 0; /* it was meant to be without */
    if (prctl(PR_GET_SECCOMP) != 2 && !is_bare) {
        fprintf(stderr, "this is for the inside of a container\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    answer = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    const char *wanted = count > 1 ? words[1] : "who";
    if (strcmp(wanted, "calls") == 0)
        calls();
    else if (strcmp(wanted, "attempts") == 0)
        attempts();
    else if (strcmp(wanted, "fds") == 0)
        descriptors();
    else if (strcmp(wanted, "strange") == 0)
        strange(atol(words[2]));
    else if (strcmp(wanted, "cgroups") == 0)
        cgroups();
    else if (strcmp(wanted, "watch") == 0)
        watch(atol(words[2]));
    else
        printf("uid %d\neuid %d\n", getuid(), geteuid());
    return 0;
}
