/* Preloaded into the proxy under test: "two.test" has the addresses ::1 and 127.0.0.1, and other names are what they are. A
   test cannot give a name two addresses otherwise without touching the machine's /etc/hosts. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>

typedef int (*lookup)(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    lookup real = (lookup)dlsym(RTLD_NEXT, "getaddrinfo");
    if (node == NULL || strcmp(node, "two.test") != 0) return real(node, service, hints, found);
    int error = real("::1", service, hints, found);
    if (error != 0) return error;
    struct addrinfo *last = *found;
    while (last->ai_next != NULL) last = last->ai_next;
    return real("127.0.0.1", service, hints, &last->ai_next);
}
