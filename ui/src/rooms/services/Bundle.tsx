import { useQuery } from "@tanstack/react-query";
import { bundle as readBundle } from "~/api/queries";
import { Card, Head } from "~/parts/Room";
import { Ago, Facts, Ident, Loading, Trouble } from "~/parts/small";
import { bytes, who } from "~/parts/time";
import { Stages } from "./Stages";

/** One deployment bundle and what became of it. */
export default function Bundle({ id }: { id: string }) {
  const read = useQuery(readBundle(id));
  const bundle = read.data;
  return (
    <>
      <Head
        title={bundle?.file_name || "Bundle"}
        page="Bundle"
        trail={[
          ["Services", "/services"],
          ["Bundles", "/bundles"],
        ]}
      />
      {read.error && (
        <Trouble error={read.error} doing="The bundle could not be read" retry={() => void read.refetch()} />
      )}
      {read.isPending && <Loading />}
      {bundle && (
        <div style={{ display: "grid", gap: 16 }}>
          <Card title="Stages" inside>
            <Stages bundle={bundle} />
          </Card>
          <Card title="File" inside>
            <Facts
              of={[
                ["Size", bytes(bundle.file_size)],
                ["SHA-256", <Ident key="sha" id={bundle.sha256} what="SHA-256" />],
                ["Signed by", bundle.signed_by || "not verified"],
                ["Uploaded by", who(bundle.created_by)],
                ["Uploaded", <Ago key="at" at={bundle.created_at} />],
              ]}
            />
          </Card>
        </div>
      )}
    </>
  );
}
