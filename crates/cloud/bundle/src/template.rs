//! The `config.yaml` that `aos bundle init` writes.

/// A service for the Node's own shell: counts in its storage, keeps its count in the state file.
pub(crate) const SERVICE: &str = r#"#!/bin/sh
# Runs in the container. It counts in /state.dat, its state, which is kept across updates and restarts.
# The folder /storage is for what is bigger.
trap 'echo "stopping"; exit 0' TERM
count=$(cat /state.dat 2>/dev/null || echo 0)
while true; do
    count=$((count + 1))
    echo "$count" > /state.dat
    echo "tick $count"
    sleep 5 &
    wait $!
done
"#;

/// The text for a service called `codename`.
pub(crate) fn config(codename: &str, architecture: &str) -> String {
    TEMPLATE
        .replace("@CODENAME@", codename)
        .replace("@ARCH@", architecture)
}

const TEMPLATE: &str = r#"# A bundle: one or more Deployable Items that are published together.
#   aos bundle check     says what is wrong with this folder
#   aos bundle sign      packs and signs it into batch.tar.gz
#   aos bundle push      signs and uploads it
schemaVersion: 2

publisher:
  author: "you"
  company: "your company"

# Where to publish; without it the cloud you are signed in to.
# publish:
#   domain: aos.example.com

items:
  - identity:
      type: service               # service, component or layer
      codename: @CODENAME@        # its name among your items
      title: "@CODENAME@"
      description: "What it is for"
    version: "1.0.0"              # semantic version; each upload needs a new one

    # One image a platform. Its files are taken from <codename>/<architecture>,
    # unless sourceFolder or path name another place.
    images:
      - archInfo:
          architecture: @ARCH@    # OCI names: amd64, arm64, ...
        osInfo:
          os: Linux
        # sourceFolder: src
        # env: ["NAME=value"]     # adds to, and wins over, configuration.env

    configuration:
      cmd: ["/service.sh"]        # program and arguments
      workingDir: /
      env: ["GREETING=hello"]

      # The Node's own /usr, /lib, /bin lie under the image's files. Set to false
      # if the image brings everything it needs.
      baseLayerIsNodeRootfs: true

      instances:
        minInstances: 1           # 1 to 100; an assignment may ask for more
        priority: 0               # higher goes first when resources are short
        labels: []                # the Node must carry all of them

      quotas:                     # without a limit: unlimited, except state and storage
        ramLimit: 32MiB
        pidsLimit: 16
        storageLimit: 1MiB        # folder /storage
        stateLimit: 4KiB          # file /state.dat
        # cpuLimit: 100           # DMIPS
        # tmpLimit: 1MiB          # tmpfs on /tmp
        # uploadSpeedLimit: 1000  # kbit/s; also downloadSpeedLimit
        # noFileLimit: 64

      # state:                    # a state to begin with, the file <codename>/state.dat
      #   filename: state.dat
      #   required: false
      # hostname: @CODENAME@
      # exposedPorts: ["80/tcp"]  # what other items may connect to
      # publishedPorts:           # reachable at the Node's own address
      #   - {hostPort: 8080, port: 80, protocol: tcp}
      # allowedConnections: ["other-item/5432/tcp"]
      # runtimes: [crun]
      # runParameters: {startInterval: PT5S, startBurst: 3, restartInterval: PT1S, restartPolicy: always}
      # user: "1000:1000"         # as seen from inside, in a user namespace of its own
      # userNamespace: true       # also without a user; then it is root inside, and nobody outside
      # rootfs: readonly          # nothing but storage, state and /tmp can be written
      # capabilities: {add: [CHOWN], drop: [NET_BIND_SERVICE]}
      # stopSignal: SIGTERM       # what asks it to end, and how long it may take
      # stopGracePeriod: PT10S
      # offlineTTL: P1D           # stop it after a day without the cloud
      # balancingPolicy: enabled
      # storagePolicy: pinned     # or expendable: it may go on elsewhere without its storage when its Node is lost
      # resources: [{name: camera, mode: rw}]
      # permissions: {vis: {"Vehicle.Speed": r}}
      # alertRules:
      #   ram: {minTimeout: PT10S, minThreshold: 60, maxThreshold: 80}

    # What must be so with other items before this one is started:
    # started, healthy, completed (the default), before, after.
    # dependencies:
    #   - identity: {codename: database}
    #     versions: ">=1.2"
    #     condition: healthy
"#;
