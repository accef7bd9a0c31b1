//! Items with real content: a static program that needs nothing, or a script for the Node's own shell.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use aos_image::{
    BlobStore, ImageConfig, Platform,
    build::{self, Image},
    graph::load_index,
};
use aos_types::{Digest, ItemConfig};

/// A web server and a few bad habits, all in one static program.
const PROGRAM: &str = r#"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
static char block[65536];
static void last(int s) {
    (void)s; int f = open("/state.dat", O_WRONLY | O_TRUNC);
    _exit(write(f, "a last word, longer than what comes", 35) != 35);
}
static void bye(int s) { (void)s; _exit(0); }
static void seven(int s) { (void)s; _exit(7); }
/* The gateway of the instance's own network: what is flooded goes no further. */
static unsigned gateway(void) {
    char line[256], name[64]; unsigned to, by; FILE *f = fopen("/proc/net/route", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%63s %x %x", name, &to, &by) == 3 && !to && by) { fclose(f); return by; }
    if (f) fclose(f);
    return 0;
}
int main(int argc, char **argv) {
    signal(SIGTERM, bye); signal(SIGPIPE, SIG_IGN); signal(SIGUSR1, seven);
    printf("up %s\n", argv[1]); fflush(stdout);
    if (!strcmp(argv[1], "die")) return 4;
    if (!strcmp(argv[1], "exit")) { usleep(argc > 3 ? 1000 * atoi(argv[3]) : 100000); return atoi(argv[2]); }
    if (!strcmp(argv[1], "stubborn")) signal(SIGTERM, SIG_IGN);
    if (!strcmp(argv[1], "check")) return access("/storage/bad", F_OK) ? 0 : 3;
    if (!strcmp(argv[1], "last")) {
        char text[100]; FILE *state = fopen("/state.dat", "r"), *copy = fopen("/tmp/read", "w");
        if (!state || !copy) return 7;
        fwrite(text, 1, fread(text, 1, sizeof text, state), copy); fclose(copy);
        signal(SIGTERM, last);
        for (;;) pause();
    }
    if (!strcmp(argv[1], "tick")) for (int n = 1;; n++) {
        FILE *f = fopen("/storage/tick.new", "w");
        if (!f || fprintf(f, "%d\n", n) < 0 || fclose(f)) return 5;
        if (rename("/storage/tick.new", "/storage/tick")) return 6;
        usleep(5000);
    }
    if (!strcmp(argv[1], "moody")) {
        struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = gateway() };
        int s = socket(AF_INET, SOCK_DGRAM, 0), filled = 0, child = 0;
        char *held = 0;
        for (long n = 0;; n++) {
            if (!access("/storage/hog", F_OK)) { if (!held && (held = malloc(64 << 20))) memset(held, 1, 64 << 20); }
            else { free(held); held = 0; }
            if (!access("/storage/fill", F_OK)) {
                int f = filled ? -1 : open("/storage/big", O_CREAT | O_WRONLY | O_TRUNC, 0600);
                for (int i = 0; f >= 0 && i < 192; i++) if (write(f, block, sizeof block) < 0) return 8;
                if (f >= 0) { fsync(f); close(f); }
                filled = 1;
            } else if (filled) { unlink("/storage/big"); filled = 0; }
            if (!access("/storage/child", F_OK) && !child && !(child = fork()))
                for (char *some;;) if ((some = malloc(1 << 20))) memset(some, 1, 1 << 20);
            if (!access("/storage/flood", F_OK))
                for (int i = 0; i < 2000; i++) if (sendto(s, block, 1200, 0, (void *)&to, sizeof to) < 0) break;
            if (!access("/storage/burn", F_OK)) { volatile long sum = 0; for (long i = 0; i < 30000000; i++) sum += i; }
            else usleep(50000);
        }
    }
    if (!strcmp(argv[1], "fill")) for (;;) {
        int f = open("/storage/big", O_CREAT | O_WRONLY | O_APPEND, 0600);
        while (f >= 0 && write(f, block, sizeof block) > 0) continue;
        FILE *why = fopen("/tmp/why", "w");
        if (why) { fprintf(why, "%d\n", errno); fclose(why); }
        close(f); usleep(100000);
    }
    int http = !strcmp(argv[1], "http");
    if (http) usleep(1000 * atoi(argv[2]));
    int one = 1, s = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(80), .sin_addr.s_addr = INADDR_ANY };
    setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(s, (void *)&a, sizeof a) || listen(s, 8)) { perror("listen"); return 9; }
    for (;;) {
        int c = accept(s, 0, 0);
        char text[256];
        int n = snprintf(text, sizeof text, "%s\n", argv[1]);
        if (http) {
            while (!access("/storage/hang", F_OK)) usleep(10000);
            int bad = !access("/storage/bad", F_OK);
            if (read(c, text, sizeof text) < 0) perror("read");
            n = snprintf(text, sizeof text, "HTTP/1.1 %s\r\n\r\n", bad ? "503 Bad" : "200 OK");
        }
        if (write(c, text, n) < 0) perror("write");
        close(c);
    }
}
"#;

/// Compiles the program once a test.
pub fn program(folder: &Path) -> PathBuf {
    let program = folder.join("program");
    if !program.exists() {
        let code = folder.join("program.c");
        fs::write(&code, PROGRAM).unwrap();
        let built = Command::new("cc")
            .args(["-static", "-O1", "-o"])
            .arg(&program)
            .arg(&code)
            .status()
            .unwrap();
        assert!(built.success(), "cc");
    }
    program
}

/// An image whose only file is the program; gives its manifest.
pub fn publish(
    store: &BlobStore,
    folder: &Path,
    args: &[&str],
    change: impl FnOnce(&mut ItemConfig),
) -> Digest {
    publish_as(store, folder, "/program", args, &[], change)
}

/// An image that holds some ballast besides the program.
pub fn publish_with(
    store: &BlobStore,
    folder: &Path,
    args: &[&str],
    ballast: &[u8],
    change: impl FnOnce(&mut ItemConfig),
) -> Digest {
    publish_as(store, folder, "/program", args, ballast, change)
}

/// An image started as `entrypoint`, which need not be there.
pub fn publish_as(
    store: &BlobStore,
    folder: &Path,
    entrypoint: &str,
    args: &[&str],
    ballast: &[u8],
    change: impl FnOnce(&mut ItemConfig),
) -> Digest {
    let content = tempfile::tempdir_in(folder).unwrap();
    if !ballast.is_empty() {
        fs::write(content.path().join("ballast"), ballast).unwrap();
    }
    fs::copy(program(folder), content.path().join("program")).unwrap();
    let mut item = ItemConfig {
        base_layer_is_node_rootfs: false,
        ..ItemConfig::default()
    };
    change(&mut item);
    let layer = build::layer(store, content.path()).unwrap();
    let image = Image {
        config: ImageConfig {
            platform: Platform {
                architecture: "amd64".into(),
                os: "linux".into(),
                ..Platform::default()
            },
            entrypoint: vec![entrypoint.into()],
            cmd: args.iter().map(|&arg| arg.to_owned()).collect(),
            exposed_ports: vec!["80/tcp".into(), "8000-8010/tcp".into()],
            ..ImageConfig::default()
        },
        item_config: Some(item),
        layers: vec![layer],
    };
    let built = build::item(store, &[image]).unwrap();
    let index = load_index(store, &built.index.digest, &Default::default()).unwrap();
    index.manifests[0].descriptor.digest
}
