import { Button } from "@mantine/core";
import { Compass } from "lucide-react";
import { Link } from "wouter";
import { Card, Head } from "~/parts/Room";
import { Empty } from "~/parts/small";

/** An address that leads nowhere. */
export function NotFound() {
  return (
    <>
      <Head title="Nothing here" page="Nothing here" />
      <Card>
        <Empty
          icon={Compass}
          title="This address leads nowhere"
          action={
            <Button component={Link} href="/units" variant="default">
              Go to Units
            </Button>
          }
        >
          What was here may have been removed, or the address was mistyped. Press / to search for it.
        </Empty>
      </Card>
    </>
  );
}
