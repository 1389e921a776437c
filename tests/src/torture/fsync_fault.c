/* Preloaded into Postgres by the torture run: while a file of this name exists, the disk refuses to sync. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int refuse(void)
{
    const char *file = getenv("STRIPE_CREDITS_REFUSE_FSYNC");

    if (file == NULL || access(file, F_OK) != 0)
        return 0;
    errno = EIO;
    return 1;
}

int fsync(int fd)
{
    return refuse() ? -1 : (int) syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
    return refuse() ? -1 : (int) syscall(SYS_fdatasync, fd);
}
