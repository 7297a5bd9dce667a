#!/bin/sh
# Brings Apache Kafka's broker, as its Maven artifacts, into .cache/kafka/lib. Does nothing when it is there already.
# Needs mvn and Java 17 or newer. KAFKA_VERSION chooses another version.
set -eu
version=${KAFKA_VERSION:-4.1.0}
root=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
home=$root/.cache/kafka
if [ -f "$home/version" ] && [ "$(cat "$home/version")" = "$version" ]; then
    exit 0
fi
rm -rf "$home"
mkdir -p "$home/build"
# Kafka speaks slf4j 1.7, so the binding is log4j-slf4j-impl, not log4j-slf4j2-impl.
cat > "$home/build/pom.xml" <<EOF
<project>
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId><artifactId>broker</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.24.3</version></dependency>
    <dependency><groupId>org.apache.logging.log4j</groupId><artifactId>log4j-core</artifactId><version>2.24.3</version></dependency>
  </dependencies>
</project>
EOF
# The broker's own modules have runtime scope in its pom.
(cd "$home/build" && mvn -q -B dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$home/lib")
rm -rf "$home/build"
printf '%s\n' "$version" > "$home/version"
echo "Apache Kafka $version is in $home/lib"
