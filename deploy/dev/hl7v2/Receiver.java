import ca.uhn.hl7v2.DefaultHapiContext;
import ca.uhn.hl7v2.HL7Exception;
import ca.uhn.hl7v2.HapiContext;
import ca.uhn.hl7v2.app.HL7Service;
import ca.uhn.hl7v2.llp.ExtendedMinLowerLayerProtocol;
import ca.uhn.hl7v2.model.AbstractGroup;
import ca.uhn.hl7v2.model.Group;
import ca.uhn.hl7v2.model.Message;
import ca.uhn.hl7v2.model.Segment;
import ca.uhn.hl7v2.model.Structure;
import ca.uhn.hl7v2.protocol.ReceivingApplication;
import ca.uhn.hl7v2.protocol.ReceivingApplicationExceptionHandler;
import ca.uhn.hl7v2.util.Terser;
import ca.uhn.hl7v2.validation.impl.ValidationContextFactory;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * HAPI's own listener, parser, classes of each version, default validation and acknowledgements. One line of JSON a message on stdout:
 * its MSH-10, the class that it was read as, the segments that this class has no place for, and the texts (OBX-5 of type TX), or the
 * complaint.
 */
public class Receiver {

  public static void main(String[] arguments) throws Exception {
    int port = Integer.parseInt(arguments[0]);
    if (port == 0) {
      try (ServerSocket free = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
        port = free.getLocalPort();
      }
    }
    HapiContext hapi = new DefaultHapiContext();
    hapi.setValidationContext(ValidationContextFactory.defaultValidation());
    // By MSH-18, as the standard has it.
    hapi.setLowerLayerProtocol(new ExtendedMinLowerLayerProtocol());
    HL7Service service = hapi.newServer(port, false);
    service.registerApplication("*", "*", new Reading());
    service.setExceptionHandler(new Complaints());
    service.startAndWait();
    System.out.println("READY " + port);
    System.in.read(); // ends with whoever started it
    service.stopAndWait();
    System.exit(0);
  }

  private static class Reading implements ReceivingApplication<Message> {
    @Override
    public boolean canProcess(Message message) {
      return true;
    }

    @Override
    public Message processMessage(Message message, Map<String, Object> metadata) throws HL7Exception {
      List<String> odd = new ArrayList<>();
      List<String> texts = new ArrayList<>();
      walk((AbstractGroup) message, odd, texts);
      say(
          "\"control\":" + quoted(new Terser(message).get("/MSH-10")),
          "\"read_as\":" + quoted(message.getClass().getName().replace("ca.uhn.hl7v2.model.", "")),
          "\"no_place\":" + list(odd),
          "\"texts\":" + list(texts));
      try {
        return message.generateACK();
      } catch (java.io.IOException error) {
        throw new HL7Exception(error);
      }
    }
  }

  private static void walk(AbstractGroup group, List<String> odd, List<String> texts) throws HL7Exception {
    odd.addAll(group.getNonStandardNames());
    for (String name : group.getNames()) {
      for (Structure one : group.getAll(name)) {
        if (one instanceof Group) {
          walk((AbstractGroup) one, odd, texts);
        } else if (name.equals("OBX") && "TX".equals(Terser.get((Segment) one, 2, 0, 1, 1))) {
          for (int line = 0; line < ((Segment) one).getField(5).length; line++) {
            texts.add(Terser.get((Segment) one, 5, line, 1, 1));
          }
        }
      }
    }
  }

  private static class Complaints implements ReceivingApplicationExceptionHandler {
    @Override
    public String processException(String incoming, Map<String, Object> metadata, String outgoing, Exception error) {
      say("\"complaint\":" + quoted(String.valueOf(error.getMessage())));
      return outgoing;
    }
  }

  private static synchronized void say(String... parts) {
    System.out.println("{" + String.join(",", parts) + "}");
    System.out.flush();
  }

  private static String list(List<String> words) {
    List<String> found = new ArrayList<>();
    for (String word : words) {
      found.add(quoted(word));
    }
    return "[" + String.join(",", found) + "]";
  }

  /** ASCII, whatever the machine's own character set is. */
  private static String quoted(String text) {
    StringBuilder found = new StringBuilder("\"");
    for (char one : (text == null ? "" : text).toCharArray()) {
      if (one == '"' || one == '\\') {
        found.append('\\').append(one);
      } else if (one < 32 || one > 126) {
        found.append(String.format("\\u%04x", (int) one));
      } else {
        found.append(one);
      }
    }
    return found.append('"').toString();
  }
}
