/* A job of 30 ms that appends the times of its start and its end to a file. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec * 1e-9;
}

int main(int count, char **words) {
    char line[80];
    double start = now();
    int file = open(words[count - 1], O_WRONLY | O_APPEND);
    usleep(30000);
    int length = sprintf(line, "%.6f %.6f\n", start, now());
    return write(file, line, length) != length;
}
