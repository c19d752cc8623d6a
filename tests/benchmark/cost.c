/* Runs a command and says what it cost: cost --to FILE [--and CPU_STAT]... COMMAND...
 *
 * Appends one line to FILE: microseconds of CPU (user and system), microseconds of wall clock, peak resident KiB of the largest process.
 * The CPU is that of the command and of everything it started, including what outlived it for less than a moment: this program adopts
 * orphans and waits for them. Each CPU_STAT is the cpu.stat of a cgroup, such as that of a service which works for the command; what it
 * used meanwhile is added. The exit code is the command's. */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_GROUPS = 8, USAGE = 64 };

static long long microseconds(struct timeval time) { return time.tv_sec * 1000000LL + time.tv_usec; }

static long long now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

/* A cgroup that is not there has used nothing: its service has not started yet. */
static long long usage_of(const char *path) {
    long long usage = 0;
    FILE *file = fopen(path, "r");
    if (!file) return 0;
    if (fscanf(file, "usage_usec %lld", &usage) != 1) errx(USAGE, "'%s' is no cpu.stat of cgroup v2", path);
    fclose(file);
    return usage;
}

int main(int count, char **words) {
    const char *to = NULL, *groups[MOST_GROUPS];
    long long before[MOST_GROUPS], used = 0;
    int number = 0, word = 1, status = 0, result = 0;
    for (; word + 1 < count && strncmp(words[word], "--", 2) == 0; word += 2) {
        if (strcmp(words[word], "--to") == 0) to = words[word + 1];
        else if (strcmp(words[word], "--and") == 0 && number < MOST_GROUPS) groups[number++] = words[word + 1];
        else errx(USAGE, "unknown option '%s'", words[word]);
    }
    if (!to || word >= count) errx(USAGE, "usage: cost --to FILE [--and CPU_STAT]... COMMAND...");
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) err(1, "prctl");

    for (int i = 0; i < number; i++) before[i] = usage_of(groups[i]);
    long long start = now();
    pid_t command = fork();
    if (command < 0) err(1, "fork");
    if (command == 0) {
        execvp(words[word], words + word);
        err(127, "failed to run '%s'", words[word]);
    }
    if (waitpid(command, &result, 0) < 0) err(1, "waitpid");
    long long wall = now() - start;
    while (waitpid(-1, &status, 0) > 0 || errno == EINTR) {}

    /* What the services still do when the command has its answer belongs to it as well. */
    if (number > 0) usleep(300000);
    for (int i = 0; i < number; i++) {
        long long after = usage_of(groups[i]);
        used += after < before[i] ? after : after - before[i]; /* smaller: the service was started anew */
    }
    struct rusage usage;
    if (getrusage(RUSAGE_CHILDREN, &usage) != 0) err(1, "getrusage");
    used += microseconds(usage.ru_utime) + microseconds(usage.ru_stime);

    FILE *file = fopen(to, "a");
    if (!file || fprintf(file, "%lld %lld %ld\n", used, wall, usage.ru_maxrss) < 0 || fclose(file) != 0) err(1, "failed to write '%s'", to);
    return WIFEXITED(result) ? WEXITSTATUS(result) : 128 + WTERMSIG(result);
}
